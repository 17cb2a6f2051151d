"""Predict, correct, train, better: what a few corrected pictures teach the model that comes with cores.

    OMP_NUM_THREADS=1 nice -n 5 python benchmarks/correct_and_learn.py WORK [--pictures 20 50] [--steps 160]

WORK gets scenes of kinds that the model never saw. `cores label` answers the questions about them as labelme files; of
the first N pictures these are corrected: every answer gives way to the true outline, as `cores label` would draw it,
and the flag of what is absent is ticked (with `--unticked` it is not, and nothing says what is absent).
`cores train tiny-own` learns each folder, `cores eval` scores it on other scenes and on the old world. The last row is
the control: the most pictures, not corrected. What is there is not done again; other settings need another WORK.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from cores import masks
from cores.data.formats.labelme_files import Labelled, labelme_file
from cores.data.sources import open_source

NEW, OLD = "ReasonSeg|val", "scenes|test"
OLD_PICTURES = 40


def cores(*words: str | Path) -> None:
    """One command of ours, shown before it runs; all ends where it fails."""
    said = [str(word) for word in words]
    sys.stdout.write(f"$ cores {' '.join(said)}\n")
    sys.stdout.flush()
    subprocess.run([sys.executable, "-m", "cores", *said], check=True)


def write_questions(work: Path) -> dict[str, dict[str, masks.Mask | None]]:
    """`questions.jsonl`: what the train scenes are asked; gives the one true mask of each query by picture, None of
    what is absent.

    A label says what one thing is called: questions for several things and for text are left out.
    """
    truth: dict[str, dict[str, masks.Mask | None]] = {}
    source = open_source("manifest:train.jsonl", work)
    for sample in (source[number] for number in range(len(source))):
        turns = [turn for conversation in sample.conversations for turn in conversation.turns]
        single = [turn for turn in turns if len(turn.targets) <= 1 and turn.form in ("phrase", "sentence")]
        truth[Path(str(sample.image)).stem] = {
            turn.query: masks.decode(turn.targets[0].mask) if turn.targets else None for turn in single
        }
    asked = [{"image": f"scenes/{name}.png", "queries": list(found)} for name, found in truth.items() if found]
    (work / "questions.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in asked), "utf-8")
    return truth


def correct(
    predicted: Path, folder: Path, truth: dict[str, dict[str, masks.Mask | None]], count: int, tick: bool
) -> None:
    """A copy of the first labelled pictures in which what was predicted gives way to what is true."""
    folder.mkdir()
    for path in sorted(predicted.glob("*.json"))[:count]:
        label = json.loads(path.read_text("utf-8"))
        size = (label["imageHeight"], label["imageWidth"])
        found = [Labelled(query, mask) for query, mask in truth[path.stem].items() if mask is not None]
        absent = {query: tick for query, mask in truth[path.stem].items() if mask is None}
        text = json.dumps(labelme_file(found, label["imagePath"], size, absent=absent))
        (folder / path.name).write_text(text, "utf-8")
        shutil.copyfile(predicted / label["imagePath"], folder / label["imagePath"])


def learn(work: Path, folder: str, steps: int) -> Path:
    """Train on a folder of labelme files; gives the run."""
    run = work / f"run-{folder}"
    if not (run / f"checkpoint-{steps}").exists():
        sources = json.dumps({"own": [f"labelme:{folder}"], "old": ["scenes|train"]})
        settings = [f"data.sources={sources}", "evaluation.sources=[]", f"trainer.max_steps={steps}"]
        again = ["--resume"] if run.exists() else []
        cores("train", "tiny-own", "--data", work, "--out", run, *settings, "trainer.save_steps=40", "--quiet", *again)
    return run


def score(work: Path, model: list[str | Path], name: str) -> list[str]:
    """gIoU of generated answers on new kinds, with its 95 % interval, what is refused there, gIoU on the old world."""
    found: dict[str, dict[str, Any]] = {}
    for source, limit in ((NEW, []), (OLD, ["--limit", str(OLD_PICTURES)])):
        out = work / f"eval-{name}-{'new' if source == NEW else 'old'}"
        if not (out / "results.json").exists():
            how = ["--answers", "generated", "--no-sanity", "--overwrite", "--quiet"]
            cores("eval", *model, "--on", source, "--data", work, *limit, "--out", out, *how)
        found |= json.loads((out / "results.json").read_text("utf-8"))["sources"]
    new, old = (found[source]["generated"] for source in (NEW, OLD))
    low, high = new["intervals"]["giou"]
    refused = [f"{new['answers'][key]:.0%}" for key in ("false_refusal", "refusal")]
    return [f"{new['giou']:.3f} ({low:.3f} to {high:.3f})", *refused, f"{old['giou']:.3f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--pictures", type=int, nargs="+", default=[20, 50])
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--unticked", action="store_true", help="nothing says what is absent")
    args = parser.parse_args()
    work, most = args.work, max(args.pictures)
    settings, begun = {"most": most, "steps": args.steps, "unticked": args.unticked}, work / "settings.json"
    if begun.exists() and json.loads(begun.read_text("utf-8")) != settings:
        parser.error(f"{work} was begun with other settings: {begun.read_text('utf-8')}; take another folder")
    work.mkdir(parents=True, exist_ok=True)
    begun.write_text(json.dumps(settings), "utf-8")
    for split, count in (("train", most), ("val", 50)):
        if not (work / f"{split}.jsonl").exists():
            cores("scenes", "write", work, "--kinds", "own", "--split", split, "--n", str(count), "--quiet")
    truth = write_questions(work)
    predicted = work / "predicted"
    if not predicted.exists():
        cores("label", "--queries", work / "questions.jsonl", "--out", predicted, "--quiet")
    rows = [("0", score(work, [], "0"))]
    for count in args.pictures:
        folder = work / f"corrected-{count}"
        if not folder.exists():
            correct(predicted, folder, truth, count, not args.unticked)
        rows.append((str(count), score(work, [learn(work, folder.name, args.steps)], str(count))))
    rows.append((f"0, but {most} as predicted", score(work, [learn(work, "predicted", args.steps)], "control")))
    heads = ("pictures corrected", "gIoU, new kinds", "present refused", "absent refused", "gIoU, old world")
    lines = [f"| {' | '.join(heads)} |", "| --- | --- | --- | --- | --- |"]
    lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in rows]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
