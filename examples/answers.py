"""The picture at the top of the README: questions about one drawn scene, the model's sentences, every level's mask.

python examples/answers.py docs/images/answer.png
"""

import sys

from PIL import Image

import cores
from cores import viz
from cores.scenes.kinds import LEARNED
from cores.scenes.scene import make_scene

SEED, SIDE = 53, 128
QUERIES = (
    "What would you hold to pour the tea?",
    "What is sharp enough to cut the bread?",
    "the chair and the kettle",
    "What carries people over the water?",
)


def main(out: str, seed: int = SEED, queries: tuple[str, ...] = QUERIES) -> None:
    """Ask, draw, save."""
    scene = make_scene(seed, LEARNED, SIDE)
    panels = []
    for query, found in zip(queries, cores.load().segment(scene.picture, list(queries)), strict=True):
        picture, _ = viz.fit(scene.picture, [], 256)
        panels.append((picture, f"{query}\n{found.answer}"))
        shown = len(panels)
        for target in found.targets:
            for number, level in enumerate(target.levels):
                large, (mask,) = viz.fit(scene.picture, [level.mask], 256)
                name = f"{level.name}: {target.phrase}" if target.phrase else level.name
                panels.append((viz.overlay(viz.fade(large), [mask], viz.colors(2)[number:]), name))
        blank = viz.fit(Image.new("RGB", (SIDE, SIDE), "white"), [], 256)[0]
        panels += [(blank, "")] * (shown + 4 - len(panels))
    viz.sheet(panels, columns=5).save(out)


if __name__ == "__main__":
    main(sys.argv[1])
