"""How long sources take to open, what memory they hold, and how many samples a worker makes of them.

    python benchmarks/data.py                      # stand-ins of real size, about 1 GB in a temporary folder
    python benchmarks/data.py --scale 0.01 --rows 1000 10000
    python benchmarks/data.py --parts                # a worker's samples of 12 and 0.3 megapixels, by part

Every figure is of a process of its own. Stand-ins have the real sets' files and fields; their pictures are small and
shared, so that opening is measured and not the disk. Held to: warm start under 3 s and 300 MB, cold build under 3
minutes and 4 GB, first sample under 1 s; `cores data check` looks at 100,000 files a minute.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from cores import masks

CHECKED = 100_000  # files a minute, at least
LIMITS = {"cold s": 180, "cold MB": 4000, "warm s": 3, "warm MB": 300, "first s": 1}
OPEN = """
import sys, time
began = time.perf_counter()
from pathlib import Path
from cores.data.sources import open_source
source = open_source(sys.argv[1], Path(sys.argv[2]))
opened = time.perf_counter()
sample = source[len(source) // 2]
first = time.perf_counter() - opened
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
peak, now = (int(status[key].split()[0]) / 1024 for key in ("VmHWM", "VmRSS"))
print(opened - began, first, peak, now, len(source))
"""
DRAW = """
import sys, time
import cv2, torch
torch.set_num_threads(1), cv2.setNumThreads(1)  # as in a worker
from pathlib import Path
from cores.data.mixture import Mixture
from cores.data.sources import open_source
from cores.geometry import content_size
from cores.processing.pixels import for_language, open_picture
from cores.processing.rasters import QuickReader
from cores.processing.segmenter_pixels import for_segmenter
from cores.processing.stored import ProcessorSizes
from cores.processing.truth import truth_of
name, root, seconds, pixels, resolution = sys.argv[1:]
sizes = ProcessorSizes(mllm_image_size=224, image_tokens=256, image_token_id=1, segmenter_image_size=1024)
read = open_picture if pixels == "exact" else QuickReader(sizes, draft=pixels == "draft")
clock, parts = time.process_time, dict.fromkeys(["decode", "segmenter", "language", "masks", "rest"], 0.0)
def part(name, work, *args):
    began = clock()
    found = work(*args)
    parts[name] += clock() - began
    return found
mixture = Mixture(
    {"one": [open_source(name, Path(root))]}, open_picture=lambda source: part("decode", read, source)
)
def make(i):
    sample = mixture[0, i]
    picture = sample.raster or sample.image
    _, resized = part("segmenter", for_segmenter, picture, 1024)
    part("language", for_language, picture, 224, "pad")
    cells = content_size(resized, 1024, 256) if resolution == "low" else None
    for conversation in sample.conversations:
        for turn in conversation.turns:
            for target in turn.targets:
                part("masks", truth_of, target.mask, cells)
make(0)
parts = dict.fromkeys(parts, 0.0)
began, busy, count = time.perf_counter(), clock(), 0
while time.perf_counter() - began < float(seconds):
    make(count := count + 1)
wall, busy = time.perf_counter() - began, clock() - busy
parts["rest"] = busy - sum(parts.values())
print(count / wall, count / busy, *(value / count * 1000 for value in parts.values()))
"""
CHECK = """
import sys, time
from pathlib import Path
from cores.data.inspect.doctor import examine
from cores.data.sources import open_source
source = open_source(sys.argv[1], Path(sys.argv[2]))
files = sum(len(source.files(i)) for i in range(len(source)))
began = time.perf_counter()
assert examine(Path(sys.argv[2]), [sys.argv[1]], decode=0).rows[0].missing == 0
print(files / (time.perf_counter() - began) * 60)
"""


def pictures(folder: Path, names: Iterator[str], size: tuple[int, int] = (480, 640), suffix: str = ".jpg") -> None:
    """One picture under many names, as hard links, as many of one file as file systems allow."""
    folder.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(0).normal(128, 40, (size[0] // 8, size[1] // 8, 3)).clip(0, 255).astype(np.uint8)
    if suffix == ".png":
        image = Image.fromarray((values[..., 0] // 30).repeat(8, 0).repeat(8, 1))
    else:
        image = Image.fromarray(values).resize(size[::-1], Image.Resampling.BICUBIC)
    for number, name in enumerate(names):
        if number % 20_000 == 0:
            first = folder / name
            image.save(first)
        else:
            os.link(first, folder / name)


def paco(root: Path, images: int, annotations: int, size: tuple[int, int] = (480, 640)) -> str:
    chance, (height, width) = random.Random(0), size
    y, x = np.mgrid[:height, :width]
    squares = (x - width / 2) ** 2 + (y - height / 2) ** 2 * (2 + np.sin(x / 3))
    mask = squares < (height / 3.2) ** 2  # as many runs as a real part's outline
    rle = masks.encode(mask)
    path = root / "vlpart" / "paco" / "annotations" / "paco_lvis_v1_train.json"
    path.parent.mkdir(parents=True)
    names = [f"train2017/{n:012}.jpg" for n in range(images)]
    with path.open("w") as file:
        made = [
            {"id": n, "file_name": name, "height": height, "width": width, "license": 1}
            for n, name in enumerate(names)
        ]
        classes = [{"id": n, "name": f"kind_(of_thing):part_{n}", "supercategory": "PART"} for n in range(531)]
        file.write(json.dumps({"images": made, "categories": classes})[:-1] + ', "annotations": [')
        for n in range(annotations):
            image = len(names) // 2 if n % (annotations // 10) == 0 else chance.randrange(images)
            record = {
                "id": n,
                "image_id": image,
                "category_id": chance.randrange(531),
                "bbox": [200.5, 100.25, 130.0, 80.0],
                "area": 5000.5,
                "segmentation": rle,
                "attribute_ids": [1, 2],
                "obj_ann_id": n,
                "unknown_color": 0,
            }
            file.write((", " if n else "") + json.dumps(record))
        file.write("]}")
    pictures(root / "coco" / "train2017", (name.rpartition("/")[2] for name in names), size)
    return "paco_lvis|train"


def llava(root: Path, records: int) -> str:
    said = ["What is in the picture?\n<image>", "A table with a cup. " * 12, "What else?", "A chair. " * 30] * 2
    lines = [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(said)]
    path = root / "llava_dataset" / "llava_instruct_150k.json"
    path.parent.mkdir(parents=True)
    with path.open("w") as file:
        file.write("[")
        for n in range(records):
            record = {"id": f"{n:012}", "image": f"{n // 2:012}.jpg", "conversations": lines}
            file.write((", " if n else "") + json.dumps(record))
        file.write("]")
    pictures(root / "coco" / "train2017", (f"{n:012}.jpg" for n in range((records + 1) // 2)))
    return "llava_instruct_150k"


def cocostuff(root: Path, files: int) -> str:
    pictures(root / "cocostuff" / "train2017", (f"{n:012}.png" for n in range(files)), suffix=".png")
    pictures(root / "coco" / "train2017", (f"{n:012}.jpg" for n in range(files)))
    return "cocostuff"


def run(code: str, *args: str, cache: Path) -> list[float]:
    command = [sys.executable, "-W", "ignore", "-c", code, *args]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env=os.environ | {"CORES_CACHE": str(cache)}
    )
    return [float(value) for value in done.stdout.split()]


def measure(name: str, root: Path) -> dict[str, float]:
    cache = root / "cache"
    past = time.time() - 100  # files that were just written are read again, as they may still change
    for path in root.rglob("*"):
        if path.suffix == ".json" or (path.is_dir() and path.parent.name in ("coco", "cocostuff")):
            os.utime(path, (past, past))
    cold, _, cold_mb, _, rows = run(OPEN, name, str(root), cache=cache)
    warm, first, _, warm_mb, _ = run(OPEN, name, str(root), cache=cache)
    return {"rows": rows, "cold s": cold, "cold MB": cold_mb, "warm s": warm, "warm MB": warm_mb, "first s": first}


WAYS = {  # data.pixels, losses.resolution
    "exact": ("exact", "original"),
    "exact, low masks": ("exact", "low"),
    "close": ("close", "original"),
    "close, low masks": ("close", "low"),
    "draft": ("draft", "original"),
    "draft, low masks": ("draft", "low"),
}


def by_part(size: tuple[int, int], seconds: float, rounds: int) -> None:
    """What a worker's samples take of the CPU's time, by part, for each way of reading pictures of a size (h, w).

    The ways take turns, so that what else the machine does is the same for all: the least and the most of the rounds.
    """
    with tempfile.TemporaryDirectory() as folder:
        name, cache = paco(Path(folder), 20, 60, size), Path(folder) / "cache"
        found: dict[str, list[list[float]]] = {label: [] for label in WAYS}
        for _ in range(rounds):
            for label, way in WAYS.items():
                found[label].append(run(DRAW, name, folder, str(seconds), *way, cache=cache)[1:])
    heads = ["decode ms", "segmenter", "language", "masks", "rest"]
    say(f"{f'{size[0]} x {size[1]}':18}{'samples/s':>15}" + "".join(f"{head:>11}" for head in heads))
    for label, each in found.items():
        speeds = [one[0] for one in each]
        least = [min(one[number] for one in each) for number in range(1, len(each[0]))]
        say(
            f"{label:18}{f'{min(speeds):.1f} to {max(speeds):.1f}':>15}" + "".join(f"{value:11.1f}" for value in least)
        )


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="of the stand-ins (default: 1, real size)")
    parser.add_argument("--rows", type=int, nargs="*", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--seconds", type=float, default=10.0, help="for which samples are made (default: 10)")
    parser.add_argument("--parts", action="store_true", help="only: what samples take of the CPU's time, by part")
    parser.add_argument("--sizes", nargs="+", default=["3000x4000", "480x640"], help="of --parts' pictures, (h, w)")
    parser.add_argument("--rounds", type=int, default=3, help="of --parts, taking turns (default: 3)")
    args = parser.parse_args()
    if args.parts:
        for size in args.sizes:
            height, width = map(int, size.split("x"))
            by_part((height, width), args.seconds, args.rounds)
        return 0
    head = ["rows", "cold s", "cold MB", "warm s", "warm MB", "first s"]
    say(f"{'source':28}" + "".join(f"{name:>11}" for name in head) + f"{'samples/s':>11}{'files/min':>11}")
    missed = []

    def report(label: str, found: dict[str, float], speed: float | None = None, checked: float | None = None) -> None:
        figures = f"{found['rows']:11,.0f}" + "".join(f"{found[name]:11.2f}" for name in head[1:])
        say(f"{label:28}{figures}" + (f"{speed:11.1f}" if speed else "") + (f"{checked:11,.0f}" if checked else ""))
        missed.extend(f"{label}: {k} {found[k]:.1f}, limit {most}" for k, most in LIMITS.items() if found[k] > most)
        if checked is not None and checked < CHECKED:
            missed.append(f"{label}: {checked:,.0f} files checked a minute, expected {CHECKED:,}")

    sizes = {
        "PACO": lambda root: paco(root, int(45_000 * args.scale), int(500_000 * args.scale)),
        "LLaVA-Instruct": lambda root: llava(root, int(157_712 * args.scale)),
        "COCO-Stuff": lambda root: cocostuff(root, int(118_000 * args.scale)),
    }
    for label, make in sizes.items():
        with tempfile.TemporaryDirectory() as folder:
            name = make(Path(folder))
            found = measure(name, Path(folder))
            speed, *_ = run(DRAW, name, folder, str(args.seconds), *WAYS["exact"], cache=Path(folder) / "cache")
            (checked,) = run(CHECK, name, folder, cache=Path(folder) / "cache")
            report(label, found, speed, checked)
    for rows in args.rows:
        with tempfile.TemporaryDirectory() as folder:
            report(f"LLaVA-Instruct x {rows:,}", measure(llava(Path(folder), rows), Path(folder)))
    for line in missed:
        say(f"missed: {line}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
