"""An evaluation on disk: every figure, every answer, and the report."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from cores.evaluation.report import Chapter, render
from cores.plain_json import dumps


def write(folder: Path, about: Mapping[str, str], chapters: Sequence[Chapter], seed: int = 0) -> None:
    """Write `results.json`, `answers.jsonl` and `report.html` into a folder that exists.

    `results.json`: {"about": ..., "sources": {name: `Result.compute()` and a note}}, fractions of 1, null where
    nothing was counted. `answers.jsonl`: one `Record` a line with its source, null for a score that is
    no number. `about`: facts such as model and seed.
    """
    sources = {chapter.name: {"note": chapter.note, **chapter.result.compute()} for chapter in chapters}
    figures = dumps({"about": dict(about), "sources": sources}, indent=1, ensure_ascii=False)
    (folder / "results.json").write_text(figures + "\n", encoding="utf-8")
    with (folder / "answers.jsonl").open("w", encoding="utf-8") as file:
        for chapter in chapters:
            for record in chapter.result.records:
                line = {"source": chapter.name, **dataclasses.asdict(record)}
                file.write(dumps(line, ensure_ascii=False) + "\n")
    title = f"{about.get('model', 'CoReS')} on {', '.join(chapter.name for chapter in chapters)}"
    (folder / "report.html").write_text(render(title, about, chapters, seed=seed), encoding="utf-8")
