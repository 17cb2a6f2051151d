"""The end of `cores eval`: what was found is added up, written and printed."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cores.errors import UserError
from cores.whole import whole_files

if TYPE_CHECKING:
    from cores.evaluation.part import Part

SHIPPED = "cores-tiny (comes with cores)"


def write_results(
    args: argparse.Namespace,
    about: Mapping[str, str],
    home: Path,
    parts: "Mapping[str, Part]",
    answers: Sequence[str],
) -> None:
    """Add up what was found of each source, write the results with `about`, and print the tables."""
    from cores.evaluation import result_files as files
    from cores.evaluation import tables
    from cores.evaluation.figures import figures
    from cores.evaluation.fitting import fit_confidence
    from cores.evaluation.journal import finish, found_in, read_back
    from cores.evaluation.protocol import PUBLISHED_COUNTS, Protocol, has_seen
    from cores.evaluation.report import Chapter

    places = found_in(home)
    for name, part in parts.items():
        if missing := [number for number in range(len(part)) if (name, number) not in places]:
            raise UserError(f"{name}: {len(missing)} pictures were not asked, such as {missing[0]}: start it again")
    protocol = Protocol(args.protocol, args.texts)
    chapters, beside = [], {}
    for name, part in parts.items():
        found = figures(read_back(places, name), answers, args.seed, args.protocol == "published")
        note = getattr(part.source, "note", "")
        kept = files.KeptAnswers(places, name)
        chapters.append(Chapter(name, found.result, part.picture, note, found, kept))
        seen = has_seen(args.model or SHIPPED, name, *_trained_on(args.model))
        beside[name] = {"protocol": protocol.rules, "published_images": PUBLISHED_COUNTS.get(name), "seen": seen}
    with whole_files(args.out) as folder:
        files.write(folder, about, chapters, args.seed, beside)
        if args.fit_confidence:
            records = (one for chapter in chapters for one in chapter.records if one.mode == answers[0])
            fit_confidence(records, " and ".join(parts)).save(folder)
    finish(home)
    sys.stdout.write(f"{tables.summary({c.name: c.result for c in chapters})}\n")
    sys.stdout.write(f"\n{tables.intervals({c.name: c.figures for c in chapters if c.figures})}\n")
    for chapter in chapters:
        mode, score = next(iter(chapter.result.scores.items()))  # the report has those of the other mode, too
        table = tables.sanity(score)
        if table.rows:
            sys.stdout.write(f"\n{chapter.name}, {mode}. {table}\n")
        published = PUBLISHED_COUNTS.get(chapter.name)
        if published not in (None, chapter.result.images):
            sys.stdout.write(f"\n{chapter.name}: {chapter.result.images} pictures, published are {published}\n")
        if beside[chapter.name]["seen"]:
            sys.stdout.write(f"\n{chapter.name}: THESE WEIGHTS WERE TRAINED ON IT\n")
    if args.fit_confidence:
        sys.stdout.write(f"\nconfidence: {args.out / 'confidence.json'}: copy it into the model's folder\n")
    sys.stdout.write(f"\nreport: {args.out / 'report.html'}\n")


def _trained_on(model: str | None) -> tuple[tuple[str, ...], str | None]:
    """The sources of the run that a model folder is of, where its recipe is beside it; and what the run went on from:
    None for bases, and for the model that comes with cores."""
    import yaml

    for folder in (Path(model), Path(model).parent) if model else ():
        try:
            recipe = yaml.safe_load((folder / "recipe.yaml").read_text("utf-8"))
            sources, start = recipe["data"]["sources"], recipe["model"].get("start")
            names = tuple(str(name) for names in sources.values() for name in names)
            return names, None if start in (None, "shipped") else str(start)
        except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError):
            continue
    return (), None
