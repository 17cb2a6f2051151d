"""The whole way on pictures of one's own, with the commands that anyone would type.

Run it by `make demo`. The pictures show kinds of objects that the shipped model never saw.
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

FOLDER = Path("demo")
OLD, NEW = "scenes|test", "ReasonSeg|val"
LIMITS = {OLD: "40", NEW: "100"}
ROWS = (
    ("gIoU, generated", ("generated", "giou")),
    ("gIoU, teacher-forced", ("teacher-forced", "giou")),
    ("cIoU, generated", ("generated", "ciou")),
    ("cIoU, teacher-forced", ("teacher-forced", "ciou")),
    ("absent things refused", ("generated", "answers", "refusal")),
    ("present ones refused", ("generated", "answers", "false_refusal")),
)


def run(*arguments: str | Path) -> None:
    """One command of ours, shown before it runs; the demo ends where it fails."""
    words = [str(word) for word in arguments]
    shown = " ".join(f"'{word}'" if set(word) & set(" |?") else word for word in words)
    sys.stdout.write(f"\n$ cores {shown}\n")
    sys.stdout.flush()
    code = subprocess.run([sys.executable, "-m", "cores", *words]).returncode
    if code:
        raise SystemExit(code)


def measure(model: list[str | Path], name: str) -> dict[str, dict[str, Any]]:
    """Both worlds' figures of a model: {source: {mode: figures}}."""
    found = {}
    for source, limit in LIMITS.items():
        out = FOLDER / f"{name}-{source.split('|')[0].lower()}"
        run("eval", *model, "--on", source, "--data", FOLDER / "own", "--limit", limit, "--out", out, "--no-sanity")
        found |= json.loads((out / "results.json").read_text("utf-8"))["sources"]
    return found


def pick(figures: dict[str, Any], path: tuple[str, ...]) -> str:
    """One figure as text, a dash where nothing was counted."""
    value: Any = figures
    for key in path:
        value = value[key]
    return "    –" if value is None else f"{value:5.2f}"


def main() -> None:
    began = time.monotonic()
    shutil.rmtree(FOLDER, ignore_errors=True)
    run("scenes", "write", FOLDER / "own", "--kinds", "own")
    before = measure([], "before")
    run("train", "tiny-own", "--data", FOLDER / "own", "--out", FOLDER / "run")
    run("merge", FOLDER / "run", "--out", FOLDER / "model")
    after = measure([FOLDER / "model"], "after")
    picture = sorted((FOLDER / "own" / "reason_seg" / "ReasonSeg" / "val").glob("*.png"))[0]
    query = json.loads(picture.with_suffix(".json").read_text("utf-8"))["text"][0]
    run("predict", picture, query, "--model", FOLDER / "model", "--out", FOLDER / "predicted")

    lines = [
        f"\n{'':<24}{'new kinds':^18}{'old world':^18}",
        f"{'':<24}{'before':>8} {'after':>8} {'before':>9} {'after':>8}",
    ]
    for label, path in ROWS:
        cells = [pick(part[source], path) for source in (NEW, OLD) for part in (before, after)]
        lines.append(f"{label:<24}{cells[0]:>8} {cells[1]:>8} {cells[2]:>9} {cells[3]:>8}")
    lines += [
        f"\n{time.monotonic() - began:.0f} seconds. Look at the masks: {FOLDER / 'after-reasonseg' / 'report.html'}",
        "Next, ask a question of your own:",
        f'cores predict {picture} "the thing that ..." --model {FOLDER / "model"} --out mine',
        "For photographs, take a model that knows them: `cores convert` makes one of a published checkpoint "
        "(docs/checkpoints.md).",
    ]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
