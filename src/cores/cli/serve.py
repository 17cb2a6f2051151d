"""`cores serve [MODEL]`: a model behind HTTP, for programs and, with its page, for people."""

import argparse
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cores.cli.asking import SHIPPED, TINY
from cores.cli.options import asked_model_options, check_device, places_of
from cores.errors import DataError, UserError

if TYPE_CHECKING:
    from cores.inference.facade import Cores, CoresInWords
    from cores.serving.settings import Settings

KEY = "CORES_API_KEY"  # in the environment, where no list of processes shows it


def main(argv: list[str]) -> int:
    """Run `cores serve` until it is told to stop. Gives the exit code.

    Raises UserError for flags that cannot be used, a taken port and a missing extra, CheckpointError for a model;
    KeyboardInterrupt after Ctrl-C.
    """
    args = _parser().parse_args(argv)
    settings = _settings(args)
    try:
        from cores.serving.server import Server, bound
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "uvicorn", "prometheus_client", "python_multipart"):
            raise
        raise UserError(f"cores serve needs {error.name}: pip install 'cores[serve]'") from None
    from cores.serving.app import create_app
    from cores.serving.hosts import is_loopback

    check_device(args)
    with bound(args.host, args.port) as socket:
        address, port = socket.getsockname()[:2]
        alone = is_loopback(address)
        settings = replace(settings, hosts=_hosts(args.allowed_hosts, args.host, alone))
        server = Server(create_app(_loaded(args), settings), settings, args.proxy, args.access_log)
        if not args.quiet:
            _say(args, port, settings, alone)
        server.run(sockets=[socket])
    if server.told == signal.SIGINT:
        raise KeyboardInterrupt
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cores serve",
        description="Answer over HTTP: POST /v1/segment and /v1/chat, described at /docs, and a page at /.",
        epilog=f"A key may also stand in the environment as {KEY}. Told to stop (SIGTERM), it answers what it has "
        "begun and ends with 0.",
    )
    parser.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="model folder, run folder or hub id; words:MLLM+SEGMENTER (default: the one that comes with cores)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 to be reached by others (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--api-key", action="append", default=[], metavar="KEY", help="one that requests must bring")
    parser.add_argument("--api-key-file", type=Path, metavar="FILE", help="a file with a key on every line")
    parser.add_argument(
        "--allowed-hosts",
        metavar="NAME,...",
        help="names by which requests may ask (default: those of this machine while others cannot reach it, else any)",
    )
    parser.add_argument("--rate-limit", type=float, metavar="N", help="requests a minute of one key or address")
    parser.add_argument("--max-pixels", type=float, metavar="MILLIONS", help="of a picture (default: 50)")
    parser.add_argument("--max-body", type=float, metavar="MIB", help="of a request (default: 32)")
    parser.add_argument("--max-batch", type=int, metavar="N", help="questions answered together (default: 16)")
    parser.add_argument(
        "--max-waiting", type=int, metavar="N", help="requests in the queue; more get 503 (default: 64)"
    )
    parser.add_argument("--cache", type=float, metavar="MIB", help="of features of seen pictures (default: 512)")
    parser.add_argument("--prefixes", type=int, metavar="N", help="pictures kept read by the LLM, too (default: 4)")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="until an answer is given up (default: 300)")
    parser.add_argument("--no-page", action="store_true", help="no page at /, for programs alone")
    parser.add_argument("--proxy", metavar="ADDRESS", help="of a proxy before it, which says who asks")
    parser.add_argument("--access-log", action="store_true", help="a line on stderr for every request")
    asked_model_options(parser)
    return parser


def _settings(args: argparse.Namespace) -> "Settings":
    """What the flags allow. Raises UserError."""
    from cores.serving.settings import MEBIBYTE, Settings

    found: dict[str, Any] = {"page": not args.no_page, "rate": args.rate_limit, "api_keys": _keys(args)}
    if args.model is None:
        found["about"] = f"{TINY}."
    scales = {
        "max_pixels": ("max_pixels", 10**6),
        "max_body": ("max_body", MEBIBYTE),
        "max_batch": ("batch", 1),
        "max_waiting": ("waiting", 1),
        "cache": ("cache", MEBIBYTE),
        "prefixes": ("prefixes", 1),
        "timeout": ("answer_seconds", 1),
    }
    for flag, (name, scale) in scales.items():
        value = getattr(args, flag)
        if value is not None:
            if not (value >= 0 if flag == "cache" else value > 0) or value == float("inf"):
                raise UserError(f"--{flag.replace('_', '-')} {value}: expected a number above 0")
            found[name] = int(value * scale) if scale > 1 else value
    if args.rate_limit is not None and not 0 < args.rate_limit < float("inf"):
        raise UserError(f"--rate-limit {args.rate_limit}: expected a number above 0")
    settings = Settings(**found)
    return replace(settings, pixels_at_once=max(settings.pixels_at_once, settings.max_pixels))


def _keys(args: argparse.Namespace) -> tuple[str, ...]:
    """The keys of flags, file and environment. Raises UserError for an empty one, DataError for a file."""
    keys = list(args.api_key)
    if args.api_key_file is not None:
        try:
            lines = args.api_key_file.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "is not UTF-8"
            raise DataError(f"--api-key-file {args.api_key_file}: {why}") from None
        keys += [line.strip() for line in lines if line.strip()]
        if not keys:
            raise DataError(f"--api-key-file {args.api_key_file}: holds no key: write one on every line")
    if KEY in os.environ:
        keys.append(os.environ[KEY])
    if any(not key.strip() for key in keys):
        raise UserError("an API key is empty: leave it out, or take a long one")
    return tuple(keys)


def _hosts(given: str | None, host: str, alone: bool) -> tuple[str, ...]:
    """What `Settings.hosts` says: the names that were given, and, where nobody else reaches the server, its own.

    Raises UserError for what is no name.
    """
    names = [] if given is None else [name.strip() for name in given.split(",")]
    for name in names:
        if not name or set(name) & set("/* "):
            raise UserError(f"--allowed-hosts {given}: expected names such as example.org,10.0.0.7")
    return (*names, "localhost", host) if alone else tuple(names)


def _loaded(args: argparse.Namespace) -> "Cores | CoresInWords":
    from cores.checkpoints.checking import check_static
    from cores.checkpoints.runs.origin import moved
    from cores.inference.facade import load
    from cores.words.load import is_words

    with moved(places_of(args.base)):
        if not is_words(args.model):
            check_static(args.model)
        return load(args.model, args.device, args.dtype, args.seed, args.quantize)


def _say(args: argparse.Namespace, port: int, settings: "Settings", alone: bool) -> None:
    """Where it is, and what one should know before others do. `alone`: nobody else can reach it."""
    host = f"[{args.host}]" if ":" in args.host else args.host
    if args.model is None:
        sys.stderr.write(f"{SHIPPED}\n")
    if not (settings.api_keys or alone):
        sys.stderr.write(
            f"warning: {args.host} may be reached by others, and no API key is asked for: see --api-key-file\n"
        )
    sys.stdout.write(f"serving at http://{host}:{port} (described at /docs); Ctrl-C stops it\n")
    sys.stdout.flush()
