"""An evaluation on disk: every figure, every answer, and the report."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cores.evaluation.report import Chapter, render


def write(folder: Path, about: Mapping[str, str], chapters: Sequence[Chapter], seed: int = 0) -> None:
    """Write `results.json`, `answers.jsonl` and `report.html` into a folder that exists.

    `results.json`: {"about": ..., "sources": {name: `Result.compute()` and a note}}, fractions of 1, null where
    nothing was counted. `answers.jsonl`: one `Record` a line with its source, null for a score that is
    no number. `about`: facts such as model and seed.
    """
    sources = {chapter.name: {"note": chapter.note, **_without_nan(chapter.result.compute())} for chapter in chapters}
    figures = json.dumps({"about": dict(about), "sources": sources}, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "results.json").write_text(figures + "\n", encoding="utf-8")
    with (folder / "answers.jsonl").open("w", encoding="utf-8") as file:
        for chapter in chapters:
            for record in chapter.result.records:
                line = _without_nan({"source": chapter.name, **dataclasses.asdict(record)})
                file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
    title = f"{about.get('model', 'CoReS')} on {', '.join(chapter.name for chapter in chapters)}"
    (folder / "report.html").write_text(render(title, about, chapters, seed=seed), encoding="utf-8")


def _without_nan(value: Any) -> Any:
    """JSON has no nan and no infinity: null stands for "nothing was counted" and for a score that is no number."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
