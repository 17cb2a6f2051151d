"""Images a second of a bulk run with 1 and 2 workers on Ray, against a plain loop in one process.

    python benchmarks/bulk.py                   # three rounds of each, about ten minutes on two cores
    python benchmarks/bulk.py --plan 1000000    # what the program itself takes to plan so many pictures

Every way answers the same questions with the model that comes with cores, a thread a worker, in a process of its own,
the ways in turn. Rates are counted from the first part that is done to the last but one: starting Ray and loading a
model take the same time for ten pictures and for a million, and are said apart. On a machine that others use, the CPU
seconds of whoever holds a model say more than the clock; what Ray takes beside them goes by the second, not by the
picture, and is said as a share of one processor.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

WAYS = {"plain loop": 0, "Ray, 1 worker": 1, "Ray, 2 workers": 2}
ABOUT = (None, None, None, 0, None, None, None)  # the model that comes with cores, asked as it is by default
BATCH, PART, QUERIES = 8, 16, ["the cup", "the thing on the left"]


def main() -> None:
    """Run the rounds and print a table, or, with --workers, one way."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pictures", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--plan", type=int, help="only plan so many pictures, two questions each")
    parser.add_argument("--workers", type=int, help="0: the plain loop; used by the program itself")
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    if args.workers is not None:
        print(json.dumps(measured(args.folder, args.workers)))  # noqa: T201
        return
    with tempfile.TemporaryDirectory(prefix="b", dir="/tmp") as name:
        if args.plan is not None:
            print(planned(Path(name), args.plan))  # noqa: T201
            return
        write_pictures(Path(name) / "in", args.pictures)
        found = {way: [] for way in WAYS}
        for _ in range(args.rounds):
            for way, workers in WAYS.items():
                found[way].append(one(Path(name), workers))
                print(way, found[way][-1], file=sys.stderr)  # noqa: T201
    print(table(found))  # noqa: T201


def planned(folder: Path, count: int) -> str:
    """CPU seconds and memory of reading a manifest, planning its questions, and looking for what is left to do."""
    from cores import __version__
    from cores.bulk.plan import Settings, digest, held, left_to_do, prepare
    from cores.bulk.questions import read_pictures
    from cores.process_memory import peak_memory

    with (folder / "questions.jsonl").open("w") as manifest:
        for number in range(count):
            line = {"image": f"images/{number // 1000:04}/{number:08}.jpg", "queries": QUERIES}
            manifest.write(json.dumps(line) + "\n")
    before, began = peak_memory(), time.process_time()
    pictures = read_pictures([folder / "questions.jsonl"], [])
    settings = Settings(digest(pictures), "jsonl", BATCH, 256, *ABOUT, __version__)
    with held(folder / "rows") as home:
        parts = left_to_do(home, prepare(home, pictures, settings, overwrite=False), settings)
    seconds, more = time.process_time() - began, peak_memory() - before
    return f"{count} pictures in {len(parts)} parts: {seconds:.0f} s of one processor, {more / 1e9:.2f} GB"


def write_pictures(folder: Path, count: int) -> None:
    """Drawn scenes, as many as wanted."""
    from cores.scenes.source import open_scenes

    folder.mkdir()
    scenes = open_scenes("train")
    for number in range(count):
        scenes[number].image.save(folder / f"{number:05}.png")


def one(folder: Path, workers: int) -> dict[str, float]:
    """One way in a process of its own."""
    command = [sys.executable, __file__, "--folder", str(folder), "--workers", str(workers)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_TMPDIR": str(folder)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measured(folder: Path, workers: int) -> dict[str, float]:
    """Pictures a second, CPU seconds a picture, and the seconds until the first part was done."""
    began, marks = time.monotonic(), []
    for pictures in (through_ray if workers else plain)(folder, workers):
        marks.append((time.monotonic(), *cpu_seconds(), pictures))
    (first, models, others, _), (last, models_last, others_last, _) = marks[0], marks[-2]
    pictures, seconds = sum(mark[-1] for mark in marks[1:-1]), last - first
    found = {"rate": pictures / seconds, "cpu": (models_last - models) / pictures, "start": first - began}
    return {**found, "beside": (others_last - others) / seconds if workers else 0.0}


def plain(folder: Path, workers: int):
    """What anybody would write: a batch after the other, a line an answer."""
    import torch

    from cores import load
    from cores.bulk.rows import answered
    from cores.plain_json import dumps

    torch.set_num_threads(1)
    model, files = load(device="cpu"), sorted((folder / "in").iterdir())
    with (folder / "plain.jsonl").open("w") as out:
        for first in range(0, len(files), BATCH):
            batch = files[first : first + BATCH]
            for file, found in zip(batch, model.segment_batch(batch, [QUERIES] * len(batch)), strict=True):
                for answer in found:
                    out.write(dumps(answered(0, str(file), answer)) + "\n")
            if (first // BATCH) % (PART // BATCH) == PART // BATCH - 1:
                yield PART


def through_ray(folder: Path, workers: int):
    """The engine of `cores predict --engine ray`."""
    from cores import __version__
    from cores.bulk.engine import Share, run, started
    from cores.bulk.plan import Settings, digest, held, prepare
    from cores.bulk.questions import read_pictures
    from cores.bulk.worker import Loading

    pictures = read_pictures(sorted((folder / "in").iterdir()), QUERIES)
    settings = Settings(digest(pictures), "jsonl", BATCH, PART, *ABOUT, __version__)
    shutil.rmtree(folder / "out", ignore_errors=True)
    with held(folder / "out") as home, started(None):
        parts = prepare(home, pictures, settings, overwrite=False)
        for done in run(parts, Share(workers, 0, 1), home, settings, Loading(None, "cpu")):
            yield parts[done.number].pictures


def cpu_seconds() -> tuple[float, float]:
    """Of the processes that hold a model (without any workers: this one), and of all others below this one."""
    import psutil

    own, models, others = psutil.Process(), 0.0, 0.0
    for process in own.children(recursive=True):
        try:
            seconds = sum(process.cpu_times()[:2])
            if "MapWorker" in " ".join(process.cmdline()):
                models += seconds
            else:
                others += seconds
        except psutil.Error:
            continue
    here = sum(own.cpu_times()[:2])
    return (models, others + here) if models else (here, 0.0)


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """Medians, and medians of the ratios to the plain loop of the same round."""
    base = found["plain loop"]
    lines = [
        "| way | images/s | to the plain loop | CPU s an image | to the plain loop | Ray beside it | s to begin |"
    ]
    lines.append("| --- | --- | --- | --- | --- | --- | --- |")
    for way, rounds in found.items():
        cells = [f"{median(one['rate'] for one in rounds):.2f}"]
        cells.append(f"{median(one['rate'] / own['rate'] for one, own in zip(rounds, base, strict=True)):.2f}")
        cells.append(f"{median(one['cpu'] for one in rounds):.3f}")
        cells.append(f"{median(one['cpu'] / own['cpu'] for one, own in zip(rounds, base, strict=True)):.2f}")
        cells.append(f"{median(one['beside'] for one in rounds):.0%}")
        cells.append(f"{median(one['start'] for one in rounds):.0f}")
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
