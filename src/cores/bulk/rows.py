"""A row out: the answer to one query about one picture, as JSON or as a row of Parquet.

Masks are compressed COCO run lengths of the picture's own size, one a target; none is a refusal. A row that could not
be answered has status `error`, says why in `error`, and has null in place of an answer.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from cores.plain_json import dumps, without_nan
from cores.whole import whole_file

if TYPE_CHECKING:
    from cores.inference.segmentation import Segmentation

STATUS = re.compile(rb'"status": "(\w+)"')  # cannot be in a text: there quotes are escaped
Row = dict[str, Any]
MASK = pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.string())])
SCHEMA = pa.schema(
    [
        ("row", pa.int64()),  # of the input, from 0
        ("image", pa.string()),
        ("query", pa.string()),
        ("status", pa.string()),
        ("answer", pa.string()),
        ("text", pa.string()),
        ("score", pa.float64()),
        ("refusal", pa.float64()),
        ("cut", pa.bool_()),
        ("size", pa.list_(pa.int32())),  # [h, w]
        ("phrases", pa.list_(pa.string())),  # from here to `masks`: one a target
        ("scores", pa.list_(pa.float64())),
        ("confidences", pa.list_(pa.float64())),
        ("boxes", pa.list_(pa.list_(pa.int32()))),  # [left, top, right, bottom], null for an empty mask
        ("masks", pa.list_(MASK)),
        ("error", pa.string()),
    ]
)


def answered(row: int, image: str, found: "Segmentation") -> Row:
    """The row of an answer."""
    targets = found.targets
    values = {
        "row": row,
        "image": image,
        "query": found.query,
        "status": found.status,
        "answer": found.answer,
        "text": found.text,
        "score": found.score,
        "refusal": found.refusal,
        "cut": found.cut,
        "size": found.size,
        "phrases": [target.phrase for target in targets],
        "scores": [target.score for target in targets],
        "confidences": [target.confidence for target in targets],
        "boxes": [target.box for target in targets],
        "masks": [target.rle for target in targets],
        "error": None,
    }
    plain: Row = without_nan(values)
    return plain


def failed(row: int, image: str, query: str, error: str) -> Row:
    """The row of a question that could not be answered."""
    values = {"row": row, "image": image, "query": query, "status": "error", "error": error}
    return {name: values.get(name) for name in SCHEMA.names}


def write_rows(rows: Sequence[Row], file: Path) -> None:
    """Write rows to a file, by its suffix, which appears whole or not at all. Raises OSError."""
    with whole_file(file) as part:
        if file.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(list(rows), SCHEMA), part)
        else:
            part.write_text("".join(dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def read_rows(file: Path) -> list[Row]:
    """The rows of a file. Raises OSError when it cannot be read."""
    if file.suffix == ".parquet":
        return pq.read_table(file).to_pylist()  # type: ignore[no-any-return]
    return [json.loads(line) for line in file.read_bytes().splitlines()]


def tally(file: Path) -> Counter[str]:
    """How many rows of a file have each status. Raises OSError when it cannot be read."""
    if file.suffix == ".parquet":
        return Counter(pq.read_table(file, columns=["status"])["status"].to_pylist())
    with file.open("rb") as lines:
        return Counter(found[1].decode() for line in lines if (found := STATUS.search(line)))
