"""labelme files of answers, to be corrected there and trained on as `labelme:PATH`."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from cores.data.formats.labelme_files import Labelled, check_label, labelme_file
from cores.data.formats.names import as_asked
from cores.errors import UserError
from cores.inference.exports.coco import size_of

if TYPE_CHECKING:
    from cores.inference.segmentation import Segmentation


def to_labelme(results: Sequence["Segmentation"], picture: str, tolerance: float = 1.0) -> dict[str, Any]:
    """The answers about one picture as labelme stores them, ready for JSON.

    Each target is a group of outlines whose label is the query and whose description is score and text; an empty mask
    gets none. What is absent is a flag of the picture, "absent: QUERY", to be ticked by whoever sees that it is so.

    Args:
        picture: its file's name; the JSON belongs beside it.
        tolerance: pixels by which an outline may leave the mask's border, so that it has few points; 0: exact.
    Raises UserError for queries that cannot be labels, DataError for no answer and for answers of two sizes.
    """
    labelled = [
        Labelled(found.query.strip(), mask, f"score {target.score:.3f}: {found.text}")
        for found in results
        for target in found.targets
        if (mask := target.mask).any()
    ]
    absent = {found.query.strip(): False for found in results if found.status == "absent"}
    return labelme_file(labelled, picture, size_of(picture, results), tolerance, absent)


def check_queries(queries: Iterable[str]) -> None:
    """Raise UserError for queries about one picture that cannot be labels, and for two that would be one label."""
    names: dict[str, str] = {}
    for query in queries:
        check_label(query)
        first = names.setdefault(as_asked(query, "query"), query)
        if first is not query:
            raise UserError(f"the queries {first!r} and {query!r} are one label: ask once")
