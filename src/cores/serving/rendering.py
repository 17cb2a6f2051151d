"""Answers as JSON, with what else was wished: masks and overlays as PNG, a labelme file."""

import base64
from collections.abc import Collection, Sequence
from io import BytesIO
from typing import Any

from PIL import Image

from cores.inference.segmentation import Segmentation
from cores.serving.pictures import decoded


def rendered(
    results: Sequence[Segmentation], picture: bytes, name: str, formats: Collection[str]
) -> list[dict[str, Any]]:
    """Each answer ready for JSON. `picture`: the file; `name`: what it is called in a labelme file.

    Raises UserError for a query that cannot be a label, where labelme is wished.
    """
    opened = decoded(picture) if "overlay" in formats else None
    return [_rendered(found, opened, name, formats) for found in results]


def _rendered(found: Segmentation, opened: Image.Image | None, name: str, formats: Collection[str]) -> dict[str, Any]:
    told = found.to_dict()
    if "png" in formats:
        for target, own in zip(found.targets, told["targets"], strict=True):
            for level, its in zip(target.levels, own["levels"], strict=True):
                its["png"] = _png(Image.fromarray(level.mask))
    if opened is not None:
        told["overlay"] = _png(found.overlay(opened))
    if "labelme" in formats:
        told["labelme"] = found.to_labelme(name)
    return told


def _png(image: Image.Image) -> str:
    file = BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")
