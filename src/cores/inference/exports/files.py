"""Answers as files: one by its suffix, or the set that `cores predict` writes."""

import csv
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from cores.inference.exports.tables import to_rows
from cores.inference.picturelike import Picturelike
from cores.plain_json import dumps
from cores.whole import whole_file

if TYPE_CHECKING:
    from cores.inference.segmentation import Segmentation

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
SUFFIXES = (*PICTURES, ".json", ".npz", ".csv")
KINDS = ("overlay", "mask", "json")


def save_file(
    found: "Segmentation", file: Path, picture: Picturelike | None = None, about: Mapping[str, Any] | None = None
) -> None:
    """Write what the file's suffix, one of SUFFIXES, says: overlay, record, stack of masks, or rows."""
    file.parent.mkdir(parents=True, exist_ok=True)
    kind = file.suffix.lower()
    with whole_file(file) as part:
        if kind == ".json":
            _write_record(found, part, about)
        elif kind == ".npz":
            phrases = np.array([target.phrase for target in found.targets], str)
            with part.open("wb") as binary:  # to a name, NumPy adds a suffix of its own
                np.savez_compressed(binary, masks=found.to_numpy(), phrases=phrases)
        elif kind == ".csv":
            with part.open("w", encoding="utf-8", newline="") as opened:
                rows = to_rows([found])
                writer = csv.DictWriter(opened, rows[0])
                writer.writeheader()
                writer.writerows(rows)
        else:
            found.overlay(picture).save(part)


def save_set(
    found: "Segmentation",
    folder: Path,
    name: str,
    picture: Picturelike | None,
    about: Mapping[str, Any] | None,
    kinds: Collection[str] = KINDS,
) -> list[Path]:
    """Write the files of these `kinds` into a folder, which is made where there is none; gives their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    if picture is not None and "overlay" in kinds:
        paths.append(folder / f"{name}.overlay.png")
        found.overlay(picture).save(paths[-1])
    for number, target in enumerate(found.targets if "mask" in kinds else (), 1):
        for level in target.levels:
            paths.append(folder / f"{name}.{number}.{level.name}.png")
            Image.fromarray(level.mask).save(paths[-1])
    if "json" in kinds:
        paths.append(folder / f"{name}.json")
        _write_record(found, paths[-1], about)
    return paths


def _write_record(found: "Segmentation", file: Path, about: Mapping[str, Any] | None) -> None:
    text = dumps({**(about or {}), **found.to_dict()}, indent=1, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")
