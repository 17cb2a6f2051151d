"""`cores chat IMAGE`: ask about a picture in the terminal, see the sentence as it is said, and the masks."""

import argparse
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cores.cli.inline_pictures import GRAPHICS, Graphics, draw, graphics_here
from cores.cli.options import asked_model_options, check_device, places_of, taken_folder
from cores.cli.terminal import beneath, printable
from cores.errors import UserError
from cores.prompts.forms import refuse_half_characters

if TYPE_CHECKING:
    from cores.inference.chat import Chat
    from cores.inference.segmentation import Segmentation

DEFAULT_OUT = "chat"
HISTORY = 500  # questions that the next chat still knows
HELP = "/undo forgets the last answer, /quit or Ctrl-D ends, Ctrl-C cuts an answer short"


def main(argv: list[str]) -> int:
    """Run `cores chat`. Gives the exit code.

    Raises UserError for a picture and flags that cannot be used, CheckpointError for a model.
    """
    parser = argparse.ArgumentParser(
        prog="cores chat",
        description="Ask about a picture, question after question. Answers are written as they are said; one with "
        "a mask is drawn over the picture, in --out and, where the terminal can, in the terminal.",
        epilog=f"{HELP}. Questions may also come from a pipe, one a line.",
    )
    parser.add_argument("image", help="the picture")
    parser.add_argument(
        "--model",
        help="model folder, run folder or hub id; words:MLLM+SEGMENTER (default: the one that comes with cores)",
    )
    usual = f"{DEFAULT_OUT}, or {DEFAULT_OUT}-2 if it is there, ..."
    parser.add_argument("--out", type=Path, help=f"folder for overlays (default: {usual})")
    parser.add_argument("--overwrite", action="store_true", help="write into a folder that is already there")
    parser.add_argument(
        "--remember",
        choices=("picture", "conversation"),
        default="picture",
        help="what stands before a question: the picture alone (default), or the turns before it, too, which only "
        "models that were trained on such talks answer well",
    )
    parser.add_argument("--max-new-tokens", type=int, help="most tokens of an answer (default: the checkpoint's)")
    parser.add_argument(
        "--picture",
        choices=("auto", *GRAPHICS),
        default="auto",
        help="how overlays are drawn in the terminal (default: as its environment says it can)",
    )
    asked_model_options(parser)
    args = parser.parse_args(argv)
    if args.max_new_tokens is not None and args.max_new_tokens < 1:
        raise UserError(f"--max-new-tokens {args.max_new_tokens}: an answer has at least one token")
    chat = _begin(args)
    with taken_folder(args.out or Path(DEFAULT_OUT), args.overwrite, not (args.out or args.overwrite)) as out:
        _talk(chat, args, out)
    return 0


def _begin(args: argparse.Namespace) -> "Chat[Any]":
    """The picture before the model. Raises DataError, CheckpointError."""
    from cores.inference.picturelike import refuse_address
    from cores.processing.pixels import open_picture

    refuse_address(args.image)
    open_picture(Path(args.image))  # before a model is loaded
    check_device(args)

    from cores.checkpoints.checking import check_static
    from cores.checkpoints.runs.origin import moved
    from cores.inference.facade import load
    from cores.words.load import is_words

    with moved(places_of(args.base)):
        if not is_words(args.model):
            check_static(args.model)
        cores: Any = load(args.model, args.device, args.dtype, args.seed, args.quantize)  # of either kind
    found: Chat[Any] = cores.chat(args.image, args.remember)
    return found


def _talk(chat: "Chat[Any]", args: argparse.Namespace, out: Path) -> None:
    graphics = graphics_here(args.picture)
    if not args.quiet and sys.stdin.isatty():
        sys.stdout.write(f"{HELP}\n")
    name = Path(args.image).stem
    with _history():
        for question in _questions():
            if question == "/undo":
                said = f"forgotten: {chat.undo().query!r}" if chat.turns else "there is nothing to forget"
                sys.stdout.write(f"{printable(said)}\n")
            elif question.startswith("/"):
                sys.stdout.write(f"{HELP}\n")
            else:
                with suppress(KeyboardInterrupt):
                    overlay = out / f"{name}.{len(chat.turns) + 1}.overlay.png"
                    _answer(chat, question, args.max_new_tokens, overlay, graphics)


def _questions() -> Iterator[str]:
    """What is typed, up to its end."""
    prompt = "> " if sys.stdin.isatty() else ""
    while True:
        try:
            question = input(prompt).strip()
            refuse_half_characters(question)
        except UnicodeDecodeError:
            raise UserError("what was typed is no text in UTF-8") from None
        except EOFError:
            if prompt:
                sys.stdout.write("\n")
            return
        if question in ("/quit", "/exit"):
            return
        if question:
            yield question


def _answer(chat: "Chat[Any]", question: str, most: int | None, overlay: Path, graphics: "Graphics") -> None:
    """Write one answer as it is said, and its masks; Ctrl-C passes as KeyboardInterrupt, and the answer is no turn."""
    told = chat.stream(question, max_new_tokens=most)
    found: Segmentation | None = None
    try:
        for piece in told:
            if isinstance(piece, str):
                sys.stdout.write(printable(piece))
                sys.stdout.flush()
            else:
                found = piece
    except UserError as error:
        sys.stdout.write(printable(str(error)))
    finally:
        told.close()
        sys.stdout.write("\n")
    if found is None:
        return
    if found.cut:
        sys.stdout.write(f"[cut after {found.tokens} tokens]\n")
    if found.targets:
        drawn = found.overlay()
        drawn.save(overlay)
        draw(drawn, graphics, beneath(sys.stdout), shutil.get_terminal_size().columns)
        sys.stdout.write(f"-> {printable(str(overlay))}\n")
    sys.stdout.flush()


@contextmanager
def _history() -> Iterator[None]:
    """Inside, the arrow keys find earlier questions, those of other chats too, where a person types them."""
    from cores.cache import cache_folder

    if not sys.stdin.isatty():
        yield
        return
    try:
        import readline
    except ImportError:  # Windows
        yield
        return
    file = cache_folder("chat") / "history"
    with suppress(OSError):
        readline.read_history_file(file)
    readline.set_history_length(HISTORY)
    try:
        yield
    finally:
        with suppress(OSError):
            readline.write_history_file(file)
            os.chmod(file, 0o600)
