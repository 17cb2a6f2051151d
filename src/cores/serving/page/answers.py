"""An answer as the page takes it: everything that it draws, lists and saves, so that it asks once."""

from typing import Any

from cores import viz
from cores.data.formats.labelme_files import Labelled, labelme_file
from cores.errors import UserError
from cores.inference.segmentation import Segmentation


def as_shown(found: Segmentation, picture: str) -> dict[str, Any]:
    """`Segmentation.to_dict`, with `colors`, (r, g, b) of each target as in `overlay`, and `labelme`, a file of its.

    `picture`: the file's name beside which labelme's would lie. `labelme` is None for a query that cannot be a label.
    """
    colors = viz.colors_of([target.phrase if target.named else None for target in found.targets])
    objects = [
        Labelled(found.query.strip(), target.mask, f"score {target.score:.3f}: {found.text}")
        for target in found.targets
        if target.mask.any()
    ]
    try:
        labelme = labelme_file(objects, picture, found.size)
    except UserError:
        labelme = None
    return {**found.to_dict(), "colors": colors, "labelme": labelme}
