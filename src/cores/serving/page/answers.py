"""An answer as the page takes it: everything that it draws, lists and saves, so that it asks once."""

from typing import Any

from cores.errors import UserError
from cores.inference.segmentation import Segmentation


def as_shown(found: Segmentation, picture: str) -> dict[str, Any]:
    """`Segmentation.to_dict`, with `colors`, (r, g, b) of each target as in `overlay`, and `labelme`, a file of its.

    `picture`: the file's name beside which labelme's would lie. `labelme` is None for a query that cannot be a label.
    """
    try:
        labelme = found.to_labelme(picture)
    except UserError:
        labelme = None
    return {**found.to_dict(), "colors": found.colors, "labelme": labelme}
