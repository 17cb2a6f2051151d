"""Scenes drawn ahead into memory-mapped files, because drawing would take a core from training.

Legend: scenes = number of them, side = 128 pixels, things = 5, the most that a scene holds.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cores.scenes.kinds import COLOURS, LEARNED, PARTS
from cores.scenes.scene import make_scene

SIDE = 128
THINGS = 5
MOST_PARTS = 5
KIND_NAMES = [kind.name for kind in LEARNED]
COLOUR_NAMES = list(COLOURS)
PART_OF = [[PARTS.index(part.name) for part in kind.parts] for kind in LEARNED]


@dataclass(frozen=True)
class Rendered:
    """Arrays over scenes; -1 is nothing.

    `pictures` (scenes, side, side, 3) uint8; `objects` and `parts` (scenes, side, side) int8: object number, and part
    index into PARTS; `kinds`, `colours` (scenes, things) int8. `boxes` (scenes, things, 1 + 5, 4) uint8 and `areas`
    (scenes, things, 1 + 5) uint16: left, top, right, bottom and pixels of what shows of the object (0) and of each
    part in its kind's order; zeros where nothing shows.
    """

    pictures: NDArray[np.uint8]
    objects: NDArray[np.int8]
    parts: NDArray[np.int8]
    kinds: NDArray[np.int8]
    colours: NDArray[np.int8]
    boxes: NDArray[np.uint8]
    areas: NDArray[np.uint16]

    def __len__(self) -> int:
        return len(self.pictures)


def render(folder: Path, first_seed: int, count: int) -> Rendered:
    """The scenes of seeds first_seed ... first_seed + count - 1, drawn unless the folder has them already."""
    shapes = {
        "pictures": ((count, SIDE, SIDE, 3), np.uint8),
        "objects": ((count, SIDE, SIDE), np.int8),
        "parts": ((count, SIDE, SIDE), np.int8),
        "kinds": ((count, THINGS), np.int8),
        "colours": ((count, THINGS), np.int8),
        "boxes": ((count, THINGS, 1 + MOST_PARTS, 4), np.uint8),
        "areas": ((count, THINGS, 1 + MOST_PARTS), np.uint16),
    }
    done = folder / f"{first_seed}-{count}.done"
    paths = {name: folder / f"{first_seed}-{count}-{name}.npy" for name in shapes}
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {
            name: np.lib.format.open_memmap(paths[name], mode="w+", dtype=kind, shape=shape)
            for name, (shape, kind) in shapes.items()
        }
        arrays["kinds"][:] = -1
        arrays["colours"][:] = -1
        for i in tqdm(range(count), desc="drawing scenes", unit="scene"):
            scene = make_scene(first_seed + i, LEARNED, SIDE)
            arrays["pictures"][i] = np.asarray(scene.picture)
            arrays["objects"][i] = scene.objects
            named = np.full_like(scene.parts, -1)
            for number, thing in enumerate(scene.things):
                kind = KIND_NAMES.index(thing.kind.name)
                arrays["kinds"][i, number] = kind
                arrays["colours"][i, number] = COLOUR_NAMES.index(thing.colour)
                here = scene.objects == number
                for slot in range(1 + len(thing.kind.parts)):
                    mask = here if slot == 0 else here & (scene.parts == slot - 1)
                    arrays["areas"][i, number, slot] = mask.sum()
                    if mask.any():
                        arrays["boxes"][i, number, slot] = bounds(mask)
                named[here] = np.array(PART_OF[kind], dtype=np.int8)[scene.parts[here]]
            arrays["parts"][i] = named
        for array in arrays.values():
            array.flush()
        done.touch()
    return Rendered(**{name: np.load(path, mmap_mode="r") for name, path in paths.items()})


def bounds(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom in pixels of a mask (h, w) with any inside; right and bottom are one past the last."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
