"""Very many pictures, each with questions of its own, and what becomes of the rows that come out.

    python examples/bulk.py FOLDER [PICTURES]

Stand-ins are drawn into FOLDER; with pictures of your own, begin at the manifest. Killed and started again, what runs
there goes on where it was; more machines join by `ray start` and --address.
"""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq

from cores.masks import decode
from cores.scenes.kinds import LEARNED
from cores.scenes.scene import make_scene


def main(folder: Path, pictures: int = 40) -> None:
    """Write, ask, read."""
    manifest = write(folder, pictures)
    out = folder / "rows"
    command = ["predict", "--engine", "ray", str(manifest), "--out", str(out), "--format", "parquet", "--workers", "1"]
    subprocess.run([sys.executable, "-m", "cores", *command], check=True)

    # A table of all rows: columns that are not asked for, such as the masks here, are not even read.
    table = pq.read_table(out, columns=["image", "query", "status", "phrases", "scores", "error"])
    statuses = Counter(table["status"].to_pylist())
    sys.stdout.write(f"{table.num_rows} rows: {', '.join(f'{count} {name}' for name, count in statuses.items())}\n")

    # Masks: run lengths, one a target, of the picture's own size; decoded row by row.
    largest, where = 0, ""
    for row in pq.read_table(out, filters=[("status", "=", "segmented")]).to_pylist():
        for mask in row["masks"]:
            if (area := int(decode(mask).sum())) > largest:
                largest, where = area, f"{row['query']!r} in {row['image']}"
    sys.stdout.write(f"largest: {where}, {largest} pixels\n")


def write(folder: Path, pictures: int) -> Path:
    """Pictures and a manifest: a line a picture, with all that is asked about it."""
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(pictures):
        scene, name = make_scene(900 + number, LEARNED), f"pictures/{number:06}.png"
        scene.picture.save(folder / name)
        queries = [f"the {thing.kind.name}" for thing in scene.things[:2]] + ["the boat"]
        lines.append(json.dumps({"image": name, "queries": queries}) + "\n")
    manifest = folder / "questions.jsonl"
    manifest.write_text("".join(lines), "utf-8")
    return manifest


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(int(count) for count in sys.argv[2:3]))
