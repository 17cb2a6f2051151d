"""Answers as rows of a table, one a target, for pandas and for whatever reads CSV."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cores import masks
from cores.errors import UserError

if TYPE_CHECKING:
    import pandas

    from cores.inference.segmentation import Segmentation

WHOLE = ("target", "left", "top", "right", "bottom", "area")  # whole numbers, and empty where there is no target


def to_rows(answers: "Sequence[Segmentation] | Mapping[str, Sequence[Segmentation]]") -> list[dict[str, Any]]:
    """A row a target, numbered from 1; an answer without targets has one row, in which the target's fields are None.

    `answers`: about one picture, or by each picture's name, which `image` then says. `left`, `top`, `right` and
    `bottom` are the box (None for an empty mask); `counts` are COCO's compressed run lengths of `height` x `width`.
    """
    if isinstance(answers, Mapping):
        return [{"image": name, **row} for name, results in answers.items() for row in to_rows(results)]
    return [row for found in answers for row in _rows(found)]


def _rows(found: "Segmentation") -> list[dict[str, Any]]:
    height, width = found.size
    said = {"query": found.query, "status": found.status, "text": found.text, "height": height, "width": width}
    rows = []
    for number, target in enumerate(found.targets, 1):
        box = dict(zip(WHOLE[1:5], target.box or (None,) * 4, strict=True))
        about = {"target": number, "phrase": target.phrase, "score": target.score}
        rows.append({**said, **about, **box, "area": masks.area(target.rle), "counts": target.rle["counts"]})
    empty = dict.fromkeys(("target", "phrase", "score", *WHOLE[1:], "counts"))
    return rows or [{**said, **empty}]


def to_pandas(answers: "Sequence[Segmentation] | Mapping[str, Sequence[Segmentation]]") -> "pandas.DataFrame":
    """`to_rows` as a data frame. Raises UserError where pandas is not installed."""
    try:
        import pandas
    except ImportError:
        raise UserError("pandas is not installed: pip install 'cores[tables]'") from None
    frame = pandas.DataFrame(to_rows(answers))
    return frame.astype(dict.fromkeys(WHOLE, "Int64")) if len(frame) else frame  # whole numbers that may be missing
