"""Hugging Face `datasets` with columns image, text, mask, as ReasonSeg is published there: `hf:PATH[|SPLIT]`.

PATH is a folder of `save_to_disk`, a folder of Parquet files, one such file, or the id of a data set on the hub. Read
with pyarrow alone. Parquet is turned into an Arrow file once; Arrow files are mapped into memory as they are.

Legend: h, w = height and width of the picture in pixels.
"""

from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from cores import masks
from cores.data.formats.json_files import check, read_json, short, take, texts
from cores.data.formats.picture_headers import Header, read_header, read_inside
from cores.data.formats.segmentation_field import read_segmentation
from cores.data.index import cached
from cores.data.record import Question, Record
from cores.data.sample import Target
from cores.data.sources.base import FileSource, locate
from cores.errors import DataError
from cores.masks import RLE
from cores.prompts.forms import form_of

TEXTS = ("text", "query", "sentence", "caption")
ROWS = 64  # of a batch when Parquet is turned into Arrow: pictures are large
SPLITS = ("train", "validation", "val", "test")


class HuggingFace(FileSource):
    """One item a row. A row without a mask asks for something that is not there."""

    def __init__(self, name: str, split: str, files: list[Path], root: Path) -> None:
        super().__init__(name, split, root)
        self.paths = files
        self.tables = [_table(path) for path in files]
        columns = self.tables[0].column_names
        self.text = next((column for column in TEXTS if column in columns), "")
        missing = [c for c, there in (("image", "image" in columns), ("text", self.text)) if not there]
        if missing:
            raise DataError(f"{name}: has no column {' and no '.join(missing)}; there are {', '.join(columns)}")
        self.starts = np.cumsum([0, *(table.num_rows for table in self.tables)])

    def __reduce__(self) -> tuple[type["HuggingFace"], tuple[str, str, list[Path], Path]]:
        return HuggingFace, (self.name, self.split, self.paths, self.root)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def read_record(self, i: int) -> Record:
        number = int(np.searchsorted(self.starts, i, side="right")) - 1
        row = i - int(self.starts[number])
        where = f"{self.paths[number]}: row {row}"
        table = self.tables[number]
        values = {column: table.column(column)[row].as_py() for column in table.column_names if column != "mask"}
        image, header = _picture(values["image"], self.paths[number].parent, where)
        asked = values[self.text]
        queries = texts([asked] if isinstance(asked, str) else check(asked, list, f"{where}: {self.text}"), where)
        sentence = values.get("is_sentence")
        mask = table.column("mask")[row] if "mask" in table.column_names else None
        find = partial(_targets, mask, header, f"{where}: mask")
        questions = []
        for query in queries:
            form = form_of(query) if sentence is None else ("sentence" if sentence else "phrase")
            questions.append(Question(query, find, form, is_sentence=bool(sentence)))
        meta = {"source": self.name, "name": header.path.name}
        return Record(image, header.size, self.split, tuple(questions), meta=meta)

    def files(self, i: int) -> tuple[Path, ...]:
        return ()  # all of it is in the tables, which have been opened

    def place(self, i: int) -> tuple[str, str]:
        return f"row-{i:06}", self.split


def _picture(value: Any, home: Path, where: str) -> tuple[Path | Image.Image, Header]:
    """A picture from its bytes, or from a file that the row names."""
    if isinstance(value, dict):
        name, value = value.get("path"), value.get("bytes") or value.get("path")
    else:
        name = None
    if isinstance(value, str):
        header = read_header(home / value)
        return header.path, header
    if not isinstance(value, bytes):
        raise DataError(f"{where}: image: found {short(value)}, expected a picture's bytes or its file")
    header = read_header(Path(name or where), value)
    return Image.open(BytesIO(value)), header


def _targets(value: pa.Scalar | None, header: Header, where: str) -> tuple[Target, ...]:
    found = None if value is None or not value.is_valid else _mask(value, header, where)
    return () if found is None else (Target(found),)


def _mask(value: pa.Scalar, header: Header, where: str) -> RLE | None:
    """A mask given row by row, as run lengths, or as a picture that is not black inside."""
    if _is_list(value.type):
        inner = value.type.value_type
        if _is_list(inner) and (pa.types.is_boolean(inner.value_type) or pa.types.is_uint8(inner.value_type)):
            return masks.encode(header.upright(_rows_of(value, where), where).astype(bool))
        return read_segmentation(value.as_py(), None, header, where)
    given = value.as_py()
    if isinstance(given, dict) and "counts" in given:
        return read_segmentation(given, None, header, where)
    content = given.get("bytes") if isinstance(given, dict) else given
    if not isinstance(content, bytes):
        raise DataError(f"{where}: found {short(given)}, expected rows of true and false, run lengths or a picture")
    inside = read_inside(Path(where), content)
    return masks.encode(header.upright(inside, where).astype(bool))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _rows_of(value: pa.Scalar, where: str) -> np.ndarray:
    """(h, w) of a list of rows. Raises DataError when they are not of one length."""
    rows = value.values
    lengths = {len(row) for row in rows if row.is_valid}
    flat = rows.flatten()
    if len(lengths) != 1 or flat.null_count or rows.null_count:
        raise DataError(f"{where}: its rows are not of one length")
    return flat.to_numpy(zero_copy_only=False).astype(np.uint8).reshape(len(rows), lengths.pop())


def _table(path: Path) -> pa.Table:
    """The columns of an Arrow or Parquet file, mapped into memory."""
    try:
        if path.suffix == ".parquet":
            path = cached("hf", [path], partial(_convert, path))
        source = pa.memory_map(str(path))
        try:
            return pa.ipc.open_file(source).read_all()
        except pa.ArrowInvalid:
            source.seek(0)
            return pa.ipc.open_stream(source).read_all()
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: is no Arrow or Parquet file that can be read: {error}") from None


def _convert(source: Path, path: Path) -> None:
    file = pq.ParquetFile(source)
    with pa.ipc.new_file(str(path), file.schema_arrow) as writer:
        for batch in file.iter_batches(ROWS):
            writer.write_batch(batch)


def _splits(home: Path) -> dict[str, list[Path]]:
    """Files by split: as `save_to_disk` notes them, else as Parquet files are called."""
    if home.is_file():
        return {home.stem.split("-")[0]: [home]}
    if (home / "dataset_dict.json").is_file():
        names = take(read_json(home / "dataset_dict.json"), "splits", list, home / "dataset_dict.json")
        return {str(name): _saved(home / str(name)) for name in names}
    if (home / "state.json").is_file():
        return {home.name: _saved(home)}
    found: dict[str, list[Path]] = {}
    for path in sorted(home.rglob("*.parquet")):
        split = path.stem.split("-")[0]
        found.setdefault(split if split in SPLITS else path.parent.name, []).append(path)
    return found


def _saved(home: Path) -> list[Path]:
    state = home / "state.json"
    parts = take(read_json(state), "_data_files", list, state)
    return [home / take(part, "filename", str, state) for part in parts]


def _from_hub(name: str) -> Path:
    """The folder of a data set from the hub, or of what is already here of it. Raises DataError."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, repo_type="dataset", allow_patterns="*.parquet"))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise DataError(f"hf:{name}: is no folder or file here, and the hub does not give it: {first}") from None


def open_hugging_face(path: str, data_dir: Path | None, name: str) -> HuggingFace:
    """`hf:PATH`, with `|SPLIT` where there are several. Raises DataError."""
    path, _, wanted = path.partition("|")
    found, root = locate(path, data_dir)
    if not found.exists():
        found = root = _from_hub(path)
    splits = _splits(found)
    if not splits:
        raise DataError(f"{name}: {found} holds neither Parquet files nor what save_to_disk writes")
    if wanted and wanted not in splits or not wanted and len(splits) > 1:
        raise DataError(f"{name}: which split? There are {', '.join(splits)}: say hf:{path}|{next(iter(splits))}")
    split = wanted or next(iter(splits))
    return HuggingFace(name, split, splits[split], root)
