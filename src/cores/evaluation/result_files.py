"""An evaluation on disk: every figure, every answer, and the report."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cores.evaluation.journal import Place, read_back
from cores.evaluation.report import Chapter, render
from cores.evaluation.result import Record
from cores.plain_json import dumps


class KeptAnswers:
    """The records of one source as they were found, read from disk each time they are gone through."""

    def __init__(self, places: Mapping[tuple[str, int], Place], source: str) -> None:
        self.places, self.source = places, source

    def lines(self) -> Iterator[bytes]:
        """Each record's line of `answers.jsonl`."""
        for kept in read_back(self.places, self.source):
            yield from kept.lines

    def __iter__(self) -> Iterator[Record]:
        return (Record.read(json.loads(line)) for line in self.lines())


def write(
    folder: Path,
    about: Mapping[str, str],
    chapters: Sequence[Chapter],
    seed: int = 0,
    beside: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Write `results.json`, `answers.jsonl` and `report.html` into a folder that exists.

    `results.json`: {"about": ..., "sources": {name: figures (`Figures.compute` or `Result.compute`) and a note}},
    fractions of 1, null where nothing was counted. `answers.jsonl`: one `Record` a line with its source, null for a
    score that is no number. `about`: facts such as model and seed; `beside`: more facts of each source.
    """
    sources = {
        chapter.name: {
            "note": chapter.note,
            **(beside or {}).get(chapter.name, {}),
            **(chapter.figures or chapter.result).compute(),
        }
        for chapter in chapters
    }
    figures = dumps({"about": dict(about), "sources": sources}, indent=1, ensure_ascii=False)
    (folder / "results.json").write_text(figures + "\n", encoding="utf-8")
    with (folder / "answers.jsonl").open("wb") as file:
        for chapter in chapters:
            file.writelines(_lines(chapter))
    title = f"{about.get('model', 'CoReS')} on {', '.join(chapter.name for chapter in chapters)}"
    (folder / "report.html").write_text(render(title, about, chapters, seed=seed), encoding="utf-8")


def _lines(chapter: Chapter) -> Iterator[bytes]:
    if isinstance(chapter.answers, KeptAnswers):
        yield from chapter.answers.lines()
        return
    for record in chapter.records:
        line = {"source": chapter.name, **dataclasses.asdict(record)}
        yield (dumps(line, ensure_ascii=False) + "\n").encode()
