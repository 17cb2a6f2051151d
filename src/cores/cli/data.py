"""`cores data check | show | dump | download | features`: what a data directory holds, and whether it is sound."""

import argparse
import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cores.cli.terminal import printable
from cores.errors import UserError
from cores.whole import whole_file

if TYPE_CHECKING:
    from cores.data.inspect.doctor import Report
    from cores.data.sources import FileSource

SHOWN = 8  # findings of each source and kind that are printed; the others are counted


def main(argv: list[str]) -> int:
    """Run `cores data`. Gives the exit code: 1 when `check` finds an error or nothing to check.

    Raises UserError for flags that cannot be used, DataError for data that cannot be.
    """
    parser = argparse.ArgumentParser(prog="cores data", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)

    check = verbs.add_parser("check", help="find what is missing, unreadable or does not match")
    check.add_argument("dir", type=Path, help="the data directory")
    check.add_argument(
        "--source", nargs="+", metavar="NAME", help="such as ReasonSeg|val (default: all that is there)"
    )
    check.add_argument("--fix-report", type=Path, metavar="FILE", help="write every finding as a line of JSON")
    check.add_argument(
        "--decode", type=int, metavar="N", help="images a source to decode (default: 16; of one's own 500)"
    )
    check.add_argument("--model", help="say which words of the texts this model's tokenizer does not know")
    check.set_defaults(run=_check)

    show = verbs.add_parser("show", help="pictures with queries and masks, as the model will see them")
    show.add_argument("source")
    show.add_argument("--data", type=Path, help="the data directory; scenes need none")
    show.add_argument("--n", type=int, default=16, help="pictures (default: 16)")
    show.add_argument("--out", type=Path, required=True, help="sheet.png or sheet.html")
    show.add_argument("--side", type=int, default=512, help="of the square in pixels (default: 512)")
    show.add_argument("--questions", type=int, default=3, help="most questions of an image (default: 3)")
    show.add_argument("--seed", type=int, default=0)
    show.set_defaults(run=_show)

    dump = verbs.add_parser("dump", help="all that a source can ask, as JSON lines")
    dump.add_argument("source")
    dump.add_argument("--data", type=Path, help="the data directory")
    dump.add_argument("--out", type=Path, required=True, help="FILE.jsonl")
    dump.add_argument("--on-bad", choices=("error", "skip"), default="error", help="about what cannot be used")
    dump.set_defaults(run=_dump)

    download = verbs.add_parser("download", help="fetch data sets into their places")
    download.add_argument("names", nargs="*", metavar="NAME", help="of the catalogue; none lists it")
    download.add_argument("--to", type=Path, metavar="DIR", help="the data directory")
    download.add_argument("--catalog", type=Path, metavar="FILE", help="another catalogue than the one of cores")
    download.add_argument("--keep", action="store_true", help="keep archives after unpacking")
    download.set_defaults(run=_download)

    features = verbs.add_parser("features", help="fill a recipe's caches of frozen encoders' features")
    features.add_argument("recipe", metavar="RECIPE", help="a name from `cores recipes ls`, or a file")
    features.add_argument("settings", nargs="*", metavar="section.key=value", help="settings to put over the recipe")
    features.add_argument("--data", type=Path, metavar="DIR", help="the data directory; scenes need none")
    features.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")
    features.set_defaults(run=_features)

    for verb in (show, dump):
        verb.add_argument("--overwrite", action="store_true")
    for verb in (check, show, dump, download, features):
        verb.add_argument("--quiet", action="store_true", help="no progress, only results and errors")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING if args.quiet else logging.INFO, format="%(message)s")
    return int(args.run(args))


@contextmanager
def _new_file(out: Path, overwrite: bool) -> Iterator[Path]:
    """A file to write into, which takes the place of `out` when the block ends well. Raises UserError."""
    if out.is_dir():
        raise UserError(f"--out {out}: is a folder, expected a file")
    if out.exists() and out.stat().st_size and not overwrite:
        raise UserError(f"--out {out}: exists already: take another, or add --overwrite to replace it")
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out) as part:
        yield part


def _open(name: str, data_dir: Path | None) -> "FileSource":
    from cores.data.sources import FileSource, open_source

    source = open_source(name, data_dir)
    if not isinstance(source, FileSource):
        raise UserError(f"{name}: is drawn, not read: write it with `cores scenes write` first")
    return source


def _check(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from cores.data.inspect.doctor import examine

    if not args.dir.is_dir():
        raise UserError(f"{args.dir}: there is no such folder")
    if args.decode is not None and args.decode < 0:
        raise UserError(f"--decode {args.decode}: expected at least 0")

    def watch(name: str, numbers: range) -> Iterable[int]:
        bar: Iterable[int] = tqdm(numbers, desc=printable(name), unit="img", disable=args.quiet)
        return bar

    report = examine(args.dir, args.source, args.decode, watch)
    if args.fix_report:
        with _new_file(args.fix_report, overwrite=True) as part:
            part.write_text("".join(f"{line}\n" for line in report.lines()), "utf-8")
    sys.stdout.write(_told(report, args.fix_report))
    if args.model is not None:
        sys.stdout.write(_unknown_words(args.model, args.dir, [row.source for row in report.rows]))
    return 0 if report.ok and report.rows else 1


def _unknown_words(model: str, data_dir: Path, names: list[str]) -> str:
    """A line on the words of these sources that a model's tokenizer does not know."""
    from cores.checkpoints.find import find
    from cores.data.inspect.texts import texts_of
    from cores.data.sources import FileSource, open_source
    from cores.errors import DataError
    from cores.processing import CoresProcessor
    from cores.processing.unknown_words import find_unknown_words

    def texts() -> Iterator[str]:
        for name in names:
            try:
                source = open_source(name, data_dir)
            except DataError:
                continue  # the report says so
            if isinstance(source, FileSource):
                yield from texts_of(source)

    unknown = find_unknown_words(CoresProcessor.from_pretrained(find(model)).tokenizer, texts())
    return f"warning: {unknown}\n" if unknown else "the model's tokenizer knows every word\n"


def _told(report: "Report", fix_report: Path | None) -> str:
    if not report.rows:
        return "no source was found: is this the data directory? docs/data.md shows the tree\n"
    lines, told = [], dict.fromkeys(((f.source, f.level) for f in report.findings), 0)
    for finding in report.findings:
        key = (finding.source, finding.level)
        told[key] += 1
        if told[key] <= SHOWN:
            where = f"{finding.file}: " if finding.file and finding.file not in finding.problem else ""
            lines.append(printable(f"{finding.level}: {finding.source}: {where}{finding.problem}"))
    for (source, level), count in told.items():
        if count > SHOWN:
            hint = f"all are in {fix_report}" if fix_report else "--fix-report FILE lists all"
            lines.append(printable(f"{level}: {source}: and {count - SHOWN:,} more; {hint}"))
    errors = sum(finding.level == "error" for finding in report.findings)
    end = f"{errors:,} errors, {len(report.findings) - errors:,} warnings"
    return "".join(f"{line}\n" for line in [*lines, "", report.table(), "", end])


def _show(args: argparse.Namespace) -> int:
    import numpy as np

    from cores.data.inspect.sheet import as_html, as_picture, panel
    from cores.data.mixture import draw_questions
    from cores.data.sources import open_source
    from cores.geometry import resized_size
    from cores.processing.pixels import open_picture

    if args.out.suffix not in (".png", ".html"):
        raise UserError(f"--out {args.out}: expected a name that ends in .png or .html")
    for name in ("n", "side", "questions"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} {getattr(args, name)}: expected at least 1")
    source = open_source(args.source, args.data)
    count = min(args.n, len(source))
    numbers = sorted(np.random.default_rng(args.seed).permutation(len(source))[:count].tolist())
    panels = []
    with _new_file(args.out, args.overwrite) as part:
        for number in numbers:
            sample = draw_questions(source, number, args.questions, np.random.default_rng([args.seed, number]))
            size = resized_size(sample.size, args.side, "pad")
            panels.append(panel(sample, open_picture(sample.image), args.side, size))
        if args.out.suffix == ".html":
            part.write_text(as_html(panels, args.source), "utf-8")
        else:
            as_picture(panels).save(part)
    sys.stdout.write(f"{args.out}: {len(panels)} of {len(source):,} images of {args.source}\n")
    return 0


def _dump(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from cores.data.bad import BadItems
    from cores.data.inspect.dump import dump_line, dump_order
    from cores.errors import DataError

    source = _open(args.source, args.data)
    bad = BadItems(args.on_bad)
    with _new_file(args.out, args.overwrite) as part, part.open("w", encoding="utf-8", newline="\n") as file:
        for numbers in tqdm(dump_order(source), desc=printable(args.source), unit="img", disable=args.quiet):
            try:
                line = dump_line(source, numbers)
            except DataError as error:
                bad.skip(error)
                continue
            bad.use()
            file.write(f"{line}\n")
    left = f", {bad.skipped} left out" if bad.skipped else ""
    sys.stdout.write(f"{args.out}: {bad.used:,} images of {args.source}{left}\n")
    return 0


def _download(args: argparse.Namespace) -> int:
    from cores.data.fetch.catalog import entries, read_catalog
    from cores.data.fetch.download import download

    catalog = read_catalog(args.catalog)
    if not args.names:
        for entry in catalog.values():
            size = sum(file.gigabytes or 0 for file in entry.files)
            how = f"{size:.1f} GB" if size else "by hand" if entry.by_hand else ""
            sys.stdout.write(f"{entry.name:20} {how:>8}  {entry.title}\n")
        return 0
    chosen = entries(args.names, catalog)
    if args.to is None:
        raise UserError("--to DIR says where the data directory is")
    for entry in chosen:
        sys.stdout.write(f"{entry.name}: {entry.title}. Licence: {entry.license}.\n")
        fetched = download(entry, args.to, keep=args.keep, progress=not args.quiet)
        if entry.files:
            sys.stdout.write(f"{entry.name}: {fetched} files fetched, {len(entry.files) - fetched} were there\n")
        if entry.by_hand:
            sys.stdout.write(f"{entry.name}: {entry.by_hand.replace('DIR', str(args.to))}\n")
    return 0


def _features(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from cores.data.sources import open_source
    from cores.recipe import load_recipe

    settings = [] if args.data is None else [f"data.dir={str(args.data.resolve())!r}"]
    recipe = load_recipe(args.recipe, [*args.settings, *settings])
    from cores.training.feature_filling import fill_features

    def watch(batches: Iterable[object], count: int) -> Iterable[object]:
        bar: Iterable[object] = tqdm(batches, desc="features", total=count, unit="batch", disable=args.quiet)
        return bar

    pictures, encoded, folders = fill_features(recipe, open_source, watch, args.device)
    sys.stdout.write(f"{', '.join(map(str, folders))}: {pictures:,} pictures, {encoded:,} encoded now\n")
    return 0
