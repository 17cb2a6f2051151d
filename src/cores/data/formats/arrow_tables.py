"""Arrow and Parquet files as tables: of the columns that are needed, validated to the last value before they are used.

A damaged offset in a table is an address that pyarrow would read without looking: only what has been validated in full
may be taken apart. That is done once a file and noted in the cache.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cores.data.index import cached
from cores.errors import CoresError, DataError
from cores.regular_files import open_regular
from cores.whole import FULL

ROWS = 64  # of a batch when Parquet is turned into Arrow: pictures are large
VALUES = 1 << 28  # of a batch; a few bytes of Parquet can stand for any number of equal ones


@contextmanager
def table_errors(where: str | Path) -> Iterator[None]:
    """Inside, pyarrow reads a file.

    Raises DataError, beginning with `where`, for whatever it raises; a full disk stays an OSError.
    """
    try:
        yield
    except CoresError:
        raise
    except FileNotFoundError:
        raise DataError(f"{where}: there is no such file") from None
    except Exception as error:  # half of its errors are Python's own: OSError, KeyError, UnicodeDecodeError, ...
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        what = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"{where}: is no Arrow or Parquet file that can be read: {what}") from None


def read_table(path: Path, columns: Sequence[str]) -> pa.Table:
    """Those of `columns` that the file has, mapped into memory. Parquet is turned into an Arrow file once.

    Raises DataError when the file is missing, damaged in any place that can be told, or has a column twice.
    """
    kind = f"table of {', '.join(columns)}"
    with table_errors(path), open_regular(path):
        if path.suffix == ".parquet":
            path = cached(kind, [path], partial(_convert, path, columns))
        else:
            cached(f"{kind}, validated", [path], partial(_validate, path, columns))
        return _mapped(path, columns)


def columns_of(path: Path) -> list[str]:
    """The names of a file's columns. Raises DataError when it is missing or no table."""
    with table_errors(path), open_regular(path) as file:
        return list((pq.ParquetFile(file).schema_arrow if path.suffix == ".parquet" else _reader(path).schema).names)


def _reader(path: Path, options: pa.ipc.IpcReadOptions | None = None) -> pa.ipc.RecordBatchFileReader:
    """A reader of an Arrow file in either of its two forms."""
    source = pa.memory_map(str(path))
    try:
        return pa.ipc.open_file(source, options=options)
    except pa.ArrowInvalid:
        source.seek(0)
        return pa.ipc.open_stream(source, options=options)


def _mapped(path: Path, columns: Sequence[str]) -> pa.Table:
    schema = _reader(path).schema
    options = pa.ipc.IpcReadOptions(included_fields=_wanted(schema, columns, path))
    return _reader(path, options).read_all()


def _wanted(schema: pa.Schema, columns: Sequence[str], path: Path) -> list[int]:
    """The places of the wanted columns that are there; one at least, since none would mean all to pyarrow."""
    twice = [name for name in columns if schema.names.count(name) > 1]
    if twice:
        raise DataError(f"{path}: has the column {twice[0]} {schema.names.count(twice[0])} times")
    found = [place for place, name in enumerate(schema.names) if name in columns]
    if not found:
        raise DataError(f"{path}: has none of the columns {', '.join(columns)}; there are {', '.join(schema.names)}")
    return found


def _validate(source: Path, columns: Sequence[str], note: Path) -> None:
    """Validate an Arrow file; the note is an Arrow file without rows."""
    table = _mapped(source, columns)
    table.validate(full=True)
    with pa.ipc.new_file(str(note), table.schema):
        pass


def _convert(source: Path, columns: Sequence[str], path: Path) -> None:
    with open_regular(source) as opened:
        file = pq.ParquetFile(opened, page_checksum_verification=True)
        names = [file.schema_arrow.names[place] for place in _wanted(file.schema_arrow, columns, source)]
        schema = pa.schema([file.schema_arrow.field(name) for name in names])
        with pa.ipc.new_file(str(path), schema) as writer:
            for batch in file.iter_batches(_rows_at_once(file, source), columns=names):
                batch.validate(full=True)
                writer.write_batch(batch.select(names))


def _rows_at_once(file: pq.ParquetFile, path: Path) -> int:
    """How many rows are unpacked together. Raises DataError when the file says that it holds more than can be true."""
    rows = file.metadata.num_rows
    groups = (file.metadata.row_group(number) for number in range(file.metadata.num_row_groups))
    values = max(
        (g.column(n).num_values / max(1, g.num_rows) for g in groups for n in range(g.num_columns)), default=1
    )
    if rows > path.stat().st_size or values > VALUES:  # a row has a picture, which takes a byte at least
        raise DataError(f"{path}: is damaged: it says that it has {rows} rows, of up to {values:.0f} values")
    return max(1, min(ROWS, int(VALUES / max(1, values))))
