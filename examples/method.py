"""The pictures of docs/method.md: the chain at work on one drawn scene, and the same token in other company.

python examples/method.py docs/images
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import cores
from cores import viz
from cores.asking.answers import decode
from cores.asking.asker import Asker
from cores.asking.image_encoding import EncodedImage
from cores.geometry import restore_bands
from cores.scenes.kinds import LEARNED
from cores.scenes.scene import make_scene

SEED, SIDE, SHOWN = 53, 128, 256  # pixels of the scene's side, and of a panel's
QUERY, OTHER = "What would you hold to pour the tea?", "What is sharp enough to cut the bread?"


def main(folder: Path) -> None:
    """Ask, look inside, draw, save: scene.png, chain.png, guidance.png."""
    scene = make_scene(SEED, LEARNED, SIDE).picture
    make_scene(SEED, LEARNED, 4 * SIDE).picture.save(folder / "scene.png")
    model = cores.load()
    assert isinstance(model, cores.Cores)
    asker = Asker(model.model, model.processor)
    image = asker.encode_image(scene)
    asked, other = asker.generate(image, [(QUERY, "sentence"), (OTHER, "sentence")])

    large = viz.fit(scene, [], SHOWN)[0]
    panels = [(large, f"{QUERY}\n{asker.read(asked).text}")]
    for name, low_res in zip(asker.levels, asked.low_res_logits, strict=True):
        logits = at_shown_size(asker, image, low_res)
        panels += [(viz.heat(large, 1 / (1 + np.exp(-logits))), f"{name}: probability")]
        panels += [(viz.overlay(viz.fade(large), [logits > 0]), f"{name}: where it is above one half")]
    viz.sheet(panels, columns=5).save(folder / "chain.png")

    def beside(location: Tensor, use_location: bool = True) -> list[Tensor]:
        """Both levels, with this token (1, dim) for the first and the asked one for the last."""
        tokens = torch.stack([location, asked.tokens[1]])
        return decode(model.model, [image.features], tokens, [0], 1, use_location)

    refiner = model.model.refiner
    company = [("its own location", beside(asked.tokens[0])), ("the knife for a location", beside(other.tokens[0]))]
    company.append(("no first mask at all", beside(asked.tokens[0], use_location=False)))
    model.model.refiner = None
    company.append(("its own location, no refiner", beside(asked.tokens[0])))
    model.model.refiner = refiner
    panels = []
    for name, (first, last) in company:
        masks = [at_shown_size(asker, image, low_res) > 0 for low_res in (first, last)]
        shown = masks[1:] if "no first" in name else masks
        panels.append((viz.overlay(viz.fade(large), shown, viz.colors(2)[2 - len(shown) :]), name))
    viz.sheet(panels).save(folder / "guidance.png")


def at_shown_size(asker: Asker, image: EncodedImage, low_res: Tensor) -> np.ndarray:
    """Logits (SHOWN, SHOWN) of one mask's low-res logits (1, h, w); the scene is as wide as it is high."""
    bands = restore_bands(low_res[0], asker.canvas, image.resized, (SHOWN, SHOWN), asker.fit)
    return np.concatenate([band.numpy() for band in bands])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
