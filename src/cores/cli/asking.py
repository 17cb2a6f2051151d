"""Pictures asked on the command line: the flags, inputs and model that `predict` and `label` share."""

import argparse
import sys
from collections.abc import Iterator
from os.path import isfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cores.cli.inputs import QUESTIONS, ToAsk, find_pictures, names_of, read_queries, read_questions
from cores.cli.options import asked_model_options, check_device, places_of
from cores.cli.terminal import printable
from cores.errors import DataError, UserError
from cores.prompts.forms import refuse_half_characters

if TYPE_CHECKING:
    from PIL import Image
    from tqdm import tqdm

    from cores.data.sample import Form
    from cores.inference.drawing import Draws
    from cores.inference.facade import Cores, CoresInWords
    from cores.inference.segmentation import Segmentation


TINY = "cores-tiny, the model that comes with cores: it knows drawn scenes, not photographs"
SHIPPED = (
    f"{TINY}. For photographs: name a published checkpoint, such as `--model xinlai/LISA-7B-v1`; "
    "`cores convert --from cores --src FOLDER --clip FOLDER --out MODEL` makes a model folder of one, "
    "`cores train cores-7b --data DIR --out RUN` trains one; then --model MODEL or --model RUN"
)


class Asked(NamedTuple):
    """A picture and its answers. `name`: of its results, unique among the pictures; `bar`: where to say something;
    `agreed`: of each answer that several drawn ones voted for, the share of them that agree with it."""

    path: Path
    name: str
    picture: "Image.Image"
    results: "list[Segmentation]"
    bar: "tqdm[Path]"
    agreed: list[float] | None = None


def asking_parser(verb: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """The parser of a verb that asks pictures."""
    parser = argparse.ArgumentParser(
        prog=f"cores {verb}",
        usage=f"cores {verb} IMAGE... QUERY [options]\n"
        f"       cores {verb} IMAGE... [--query QUERY]... [--queries FILE] [options]\n"
        f"       cores {verb} --queries FILE.jsonl [options]",
        description=description,
        epilog=epilog,
    )
    parser.add_argument(
        "images",
        nargs="*",
        metavar="IMAGE... QUERY",
        help="pictures, folders of pictures (video frames, too), or patterns such as 'photos/**/*.jpg'; and, without "
        "--query and --queries, what to segment, in words and quotes, as the last of all",
    )
    parser.add_argument(
        "--query", action="append", default=[], metavar="QUERY", help="what to segment; may be said several times"
    )
    parser.add_argument(
        "--queries",
        type=Path,
        metavar="FILE",
        help="a text file with a query on every line; or JSON lines (.jsonl), each with the fields image and query, "
        "or queries, for pictures with queries of their own",
    )
    parser.add_argument(
        "--model",
        help="model folder, run folder or hub id; words:MLLM+SEGMENTER (default: the one that comes with cores)",
    )
    parser.add_argument(
        "--form",
        choices=("phrase", "sentence", "explain", "raw"),
        help="phrase: a name; sentence: a whole question; explain: it wants the reason, too; raw: text as it is "
        "(default: phrase or sentence, by the query's words)",
    )
    parser.add_argument("--max-new-tokens", type=int, help="most tokens of an answer (default: the checkpoint's)")
    parser.add_argument("--skip-bad", action="store_true", help="go on without pictures that cannot be read")
    parser.add_argument("--overwrite", action="store_true", help="write into a folder that is already there")
    asked_model_options(parser)
    return parser


def drawing_options(parser: argparse.ArgumentParser) -> None:
    """Add `--samples --temperature --top-p`."""
    parser.add_argument("--samples", type=int, help="draw so many answers by chance; the pixels of most are the mask")
    parser.add_argument("--temperature", type=float, help="of --samples: how freely words are drawn (default: 1)")
    parser.add_argument(
        "--top-p", type=float, help="of --samples: draw from the likeliest words of so much (default: 1)"
    )


def parsed(parser: argparse.ArgumentParser, argv: list[str]) -> tuple[argparse.Namespace, list[ToAsk]]:
    """The flags, and the pictures with what to ask about each.

    Raises UserError for everything that can be known to be wrong by their names; SystemExit as argparse does.
    """
    args = parser.parse_intermixed_args(argv)
    if not _pictures_in_queries(args):
        if not args.images:
            parser.error("IMAGE is missing: name a picture, a folder of pictures or a pattern")
        if not (args.query or args.queries) and len(args.images) < 2:
            parser.error("QUERY is missing: say what to segment, as the last argument or with --query")
    if args.max_new_tokens is not None and args.max_new_tokens < 1:
        raise UserError(f"--max-new-tokens {args.max_new_tokens}: an answer has at least one token")
    return args, _inputs(args)


def _pictures_in_queries(args: argparse.Namespace) -> bool:
    return args.queries is not None and args.queries.suffix.lower() == QUESTIONS


def _inputs(args: argparse.Namespace) -> list[ToAsk]:
    """The pictures with their queries; those of --query are asked first. Raises UserError."""
    named, queries = list(args.images), list(args.query)
    if any(not query.strip() for query in queries):
        raise _empty()
    for query in queries:
        refuse_half_characters(query)
    if _pictures_in_queries(args):
        if named:
            raise UserError(f"--queries {args.queries}: names the pictures itself: leave out {named[0]}")
        none: list[Form | None] = [None] * len(queries)
        return [ToAsk(path, queries + own, none + forms) for path, own, forms in read_questions(args.queries)]
    if args.queries is not None:
        queries += read_queries(args.queries)
    if not queries:
        queries = [named.pop()]
        if Path(queries[0]).suffix and isfile(queries[0]):  # a long query can be no name
            raise UserError(
                f"the last argument is the query, but {queries[0]} is a file: put the query after the pictures"
            )
        if not queries[0].strip():
            raise _empty()
        refuse_half_characters(queries[0])
    return [ToAsk(path, queries, [None] * len(queries)) for path in find_pictures(named)]


def _empty() -> UserError:
    return UserError('QUERY is empty: ask for something in words, such as "the handle of the cup"')


def answers(args: argparse.Namespace, asked: list[ToAsk]) -> Iterator[Asked]:
    """Load the model, look at all pictures, then ask about each; the next is opened when the caller is done with one.

    Raises UserError for pictures that cannot be read (`--skip-bad`: when none can), CheckpointError for a model.
    """
    asked = _readable(asked, args.skip_bad)
    check_device(args)
    from tqdm import tqdm

    from cores.inference.drawing import Draws
    from cores.processing.pixels import open_picture

    drawing = {"samples": args.samples, "temperature": args.temperature, "top_p": args.top_p}
    given = {name: value for name, value in drawing.items() if value is not None}
    draws = Draws.of({**given, "seed": args.seed} if given else {})
    cores = _loaded(args, asked)
    answered = 0
    with tqdm(total=len(asked), desc="asking", unit="img", disable=args.quiet or len(asked) == 1) as bar:
        for (path, queries, forms), name in zip(asked, names_of([one.path for one in asked]), strict=True):
            try:
                picture = open_picture(path)
            except DataError as error:  # readable when all were looked at, and not any more
                if not args.skip_bad:
                    raise
                bar.write(f"skipped: {printable(str(error))}", file=sys.stderr)
                continue
            said = [(query, form or args.form) for query, form in zip(queries, forms, strict=True)]
            results, agreed = _ask(cores, picture, said, args.max_new_tokens, draws)
            yield Asked(path, name, picture, results, bar, agreed)
            sys.stdout.flush()
            answered += 1
            bar.update()
    if not answered:
        raise UserError("none of the pictures could be read, nothing was asked")


def _ask(
    cores: "Cores | CoresInWords",
    picture: "Image.Image",
    said: "list[tuple[str, Form | None]]",
    max_new_tokens: int | None,
    draws: "Draws | None",
) -> "tuple[list[Segmentation], list[float] | None]":
    """The answers to queries, each with its form, and the share of the drawn ones that agree with it, if any are."""
    from cores.inference.mixed_forms import segment_mixed
    from cores.inference.voting import agreement, joined

    if draws is None:
        return segment_mixed(cores, [picture], [said], max_new_tokens)[0], None
    encoded = cores.encode(picture)
    drawn: dict[int, list[Segmentation]] = {}
    for form in dict.fromkeys(form for _, form in said):
        places = [place for place, (_, its) in enumerate(said) if its == form]
        found = cores.ask(
            encoded,  # type: ignore[arg-type]
            [said[place][0] for place in places],
            form,
            max_new_tokens,
            samples=draws.samples,
            temperature=draws.temperature,
            top_p=draws.top_p,
            seed=draws.seed,
        )
        drawn.update(zip(places, found, strict=True))
    results = [joined(drawn[place]).about(picture) for place in range(len(said))]
    return results, [agreement(drawn[place], result.mask) for place, result in enumerate(results)]


def _loaded(args: argparse.Namespace, asked: list[ToAsk]) -> "Cores | CoresInWords":
    """The model, which can be asked all of these queries."""
    from cores.checkpoints.checking import check_static
    from cores.checkpoints.runs.origin import moved
    from cores.inference.facade import load
    from cores.processing.unknown_words import find_unknown_words
    from cores.words.load import is_words

    with moved(places_of(args.base)):
        if not is_words(args.model):
            check_static(args.model)
        cores = load(args.model, args.device, args.dtype, args.seed, args.quantize)
    queries = dict.fromkeys(pair for one in asked for pair in zip(one.queries, one.forms, strict=True))
    for query, form in queries:
        cores.check([query], form or args.form)
    unknown = find_unknown_words(cores.tokenizer, list(dict.fromkeys(query for query, _ in queries)))
    if unknown:
        sys.stderr.write(f"warning: {unknown}\n")
    return cores


def say_what_is_shipped(args: argparse.Namespace) -> None:
    """Where no model was named: which one it was, and how to get another."""
    if args.model is None and not args.quiet:
        sys.stderr.write(f"{SHIPPED}\n")


def _readable(asked: list[ToAsk], skip_bad: bool) -> list[ToAsk]:
    """The pictures that can be read, all looked at before a model is loaded.

    Raises UserError that names all others; with `skip_bad` they are named on stderr, and an error only when all are.
    """
    from cores.processing.pixels import open_picture  # torch comes with it: after everything that needs none

    good, wrong = [], []
    for one in asked:
        try:
            refuse_half_characters(str(one.path))  # its name stands in what is written
            open_picture(one.path)
            good.append(one)
        except UserError as error:
            wrong.append(printable(str(error)))
    if wrong and not (skip_bad and good):
        raise UserError("; ".join(wrong))
    for line in wrong:
        sys.stderr.write(f"skipped: {line}\n")
    return good
