"""Hugging Face `datasets` with columns image, text, mask: `hf:PATH[|CONFIGURATION][|SPLIT]`.

PATH is a folder of `save_to_disk`, a folder of Parquet files, one such file, a folder of pictures with a
`metadata.jsonl`, or the id of a data set on the hub. Read with pyarrow alone.

Legend: h, w = height and width of the picture in pixels.
"""

from collections.abc import Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from cores.data.formats.arrow_tables import columns_of, read_table, table_errors
from cores.data.formats.json_files import check, maybe, short, texts
from cores.data.formats.mask_cells import read_mask_cell
from cores.data.formats.picture_folder import read_metadata
from cores.data.formats.picture_headers import Header, read_header
from cores.data.formats.table_folders import METADATA, choose, find_splits
from cores.data.record import Question, Record
from cores.data.sample import Target
from cores.data.sources.base import FileSource, locate, relative
from cores.errors import DataError
from cores.picture_errors import picture_errors
from cores.prompts.forms import form_of

TEXTS = ("text", "query", "sentence", "caption")
MASKS = ("mask", "masks")


class HuggingFace(FileSource):
    """One item a row. Where the mask's cell is null the row asks for something that is not there.

    Raises DataError when a file cannot be read or lacks a column.
    """

    def __init__(self, name: str, split: str, files: list[Path], root: Path) -> None:
        super().__init__(name, split, root)
        self.paths = files
        self.tables = [_table(path) for path in files]
        self.starts = np.cumsum([0, *(table.num_rows for table in self.tables)])

    def __reduce__(self) -> tuple[type["HuggingFace"], tuple[str, str, list[Path], Path]]:
        return HuggingFace, (self.name, self.split, self.paths, self.root)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def _find(self, i: int) -> tuple[pa.Table, Path, int]:
        """The table, its file and the row there of item i."""
        number = int(np.searchsorted(self.starts, i, side="right")) - 1
        return self.tables[number], self.paths[number], i - int(self.starts[number])

    def read_record(self, i: int) -> Record:
        table, path, row = self._find(i)
        where = f"{path}: row {row}"
        with table_errors(where):
            cells = {column: table.column(column)[row] for column in table.column_names}
            mask = cells.pop("mask")
            values = {column: cell.as_py() for column, cell in cells.items()}
        image, header = _picture(values["image"], path.parent, where)
        asked = values["text"]
        queries = texts([asked] if isinstance(asked, str) else check(asked, list, f"{where}: text"), f"{where}: text")
        sentence = maybe(values, "is_sentence", bool, where)
        find = partial(_targets, mask, header, path.parent, f"{where}: mask")
        questions = []
        for query in queries:
            form = form_of(query) if sentence is None else ("sentence" if sentence else "phrase")
            questions.append(Question(query, find, form, is_sentence=bool(sentence)))
        meta = {"source": self.name, "name": header.path.name}
        return Record(image, header.size, self.split, tuple(questions), meta=meta)

    def files(self, i: int) -> tuple[Path, ...]:
        """The picture's file, where the row names one; none where the picture is in the table."""
        table, path, row = self._find(i)
        if not pa.types.is_string(table.schema.field("image").type):
            return ()  # all of it is in the tables, which have been opened
        name = table.column("image")[row].as_py()
        return () if name is None else (path.parent / name,)

    def place(self, i: int) -> tuple[str, str]:
        """The name of the picture's file, or `row-000000` where the picture is in the table; and the split."""
        files = self.files(i)
        return (relative(files[0], self.root) if files else f"row-{i:06}"), self.split

    def problems(self) -> Iterator[tuple[Path, str]]:
        """Files in which no row has a mask."""
        for table, path in zip(self.tables, self.paths, strict=True):
            if table.num_rows and table.column("mask").null_count == table.num_rows:
                yield path, "no row has a mask: all of them ask for what is not there"


def _picture(value: Any, home: Path, where: str) -> tuple[Path | Image.Image, Header]:
    """A picture from its bytes, or from a file that the row names."""
    name, content = (value.get("path"), value.get("bytes")) if isinstance(value, dict) else (None, value)
    if isinstance(content, bytes):
        header = read_header(Path(name if isinstance(name, str) else where), content)
        with picture_errors(where):
            return Image.open(BytesIO(content)), header
    if not isinstance(name := name or content, str):
        raise DataError(f"{where}: image: found {short(value)}, expected a picture's bytes or its file")
    header = read_header(home / name)
    return header.path, header


def _targets(cell: pa.Scalar, header: Header, home: Path, where: str) -> tuple[Target, ...]:
    if not cell.is_valid:
        return ()
    with table_errors(where):
        return tuple(Target(mask) for mask in read_mask_cell(cell, header, home, where))


def _table(path: Path) -> pa.Table:
    """The columns image, text, mask and is_sentence of a file. Raises DataError when one of the first three lacks."""
    if path.name == METADATA:
        return read_metadata(path, TEXTS)
    there = columns_of(path)
    text, mask = (next((name for name in names if name in there), None) for names in (TEXTS, MASKS))
    missing = [c for c, found in (("image", "image" in there), ("text", text), ("mask", mask)) if not found]
    if missing:
        raise DataError(f"{path}: has no column {' and no '.join(missing)}; there are {', '.join(there)}")
    named = {"image": "image", str(text): "text", str(mask): "mask", "is_sentence": "is_sentence"}
    table = read_table(path, list(named))
    return table.rename_columns([named[column] for column in table.column_names])


def _from_hub(name: str) -> Path:
    """The folder of a data set from the hub, or of what is already here of it. Raises DataError."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, repo_type="dataset", allow_patterns=["*.parquet", "README.md"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"hf:{name}: is no folder or file here, and the hub does not give it: {first}") from None


def open_hugging_face(path: str, data_dir: Path | None, name: str) -> HuggingFace:
    """Open `hf:PATH`, with `|SPLIT` where there are several, and `|CONFIGURATION|SPLIT`.

    Raises DataError when it is neither here nor on the hub, when the split is not in it, and when it cannot be used.
    """
    path, *asked = path.split("|")
    found, root = locate(path, data_dir)
    if not found.exists():
        found = root = _from_hub(path)
    split, files = choose(find_splits(found), asked, path)
    return HuggingFace(name, split, files, root)
