"""Pictures and queries as they are named on a command line: files, folders, patterns, files of queries."""

import glob
import re
from pathlib import Path
from typing import Any, NamedTuple

from cores.data.formats.json_files import check, decode, parse, read_bytes, take, texts
from cores.data.formats.picture_headers import SUFFIXES
from cores.data.formats.said_form import said_form
from cores.data.sample import Form
from cores.data.sources.base import named_file
from cores.errors import DataError, UserError

QUERY = re.compile(r"(\.q\d+)+$")  # behind a picture's name in those of its results
QUESTIONS = ".jsonl"  # a file of queries that says which picture each is about


class ToAsk(NamedTuple):
    """A picture and what to ask about it. `forms`: of each query; None: its input does not say."""

    path: Path
    queries: list[str]
    forms: list[Form | None]


def find_pictures(named: list[str]) -> list[Path]:
    """The pictures that arguments name, in their order, each once.

    A folder stands for the pictures directly in it, a pattern for what it matches ("**" for folders at any depth),
    both in natural order: frame2 before frame10. Anything else is taken as a file. Raises UserError for a folder or
    pattern without a picture, and for a URL.
    """
    from cores.inference.picturelike import refuse_address

    found: list[Path] = []
    for name in named:
        refuse_address(name)
        path = Path(name)
        if path.is_dir():
            inside = sorted(filter(_is_picture, path.iterdir()), key=_natural)
            if not inside:
                raise UserError(f"{name}: there is no picture in this folder ({', '.join(SUFFIXES)})")
        elif glob.has_magic(name) and not path.exists():
            inside = sorted(filter(_is_picture, map(Path, glob.glob(name, recursive=True))), key=_natural)
            if not inside:
                raise UserError(f"{name}: no picture has such a name ({', '.join(SUFFIXES)})")
        else:
            inside = [path]
        found += inside
    return list(dict.fromkeys(found))


def _natural(path: Path) -> tuple[list[int | str], str]:
    """Sorts numbers in names by their value; what is the same but for leading zeros and suffix, as text."""
    pieces = re.split(r"(\d+)", str(path.with_suffix("")))  # text and digits in turn
    return [int(piece) if place % 2 else piece for place, piece in enumerate(pieces)], str(path)


def _is_picture(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()


def names_of(images: list[Path]) -> list[str]:
    """A name for each picture's results: its own without the suffix, with a number where that is taken.

    `cup.q2` is taken by `cup`, too: so the results of its second query are called.
    """
    names: list[str] = []
    taken: set[str] = set()
    for path in images:
        name, number = path.stem, 1
        while (own := QUERY.sub("", name.lower())) in taken:  # some file systems hold Cup and cup to be one
            number += 1
            name = f"{path.stem}-{number}"
        taken.add(own)
        names.append(name)
    return names


def read_queries(file: Path) -> list[str]:
    """The queries of a text file, one a line; empty lines are left out.

    Raises DataError when it cannot be read, is no UTF-8, or holds none.
    """
    lines = decode(read_bytes(file), file).splitlines()
    queries = [line.strip() for line in lines if line.strip()]
    if not queries:
        raise DataError(f"{file}: holds no query: write one on every line")
    return queries


def read_questions(file: Path) -> list[ToAsk]:
    """The pictures of a file of JSON lines, in its order, each with its own queries.

    A line has `image`, a path from the file's folder, and `query`, a text, or `queries`, a list of them; lines of one
    image are put together and a query is asked once in a form. `form` may say how a line's queries are put into
    words. Other fields are not looked at, so that a manifest will do.

    Raises DataError, with the line, when it cannot be read.
    """
    found: dict[Path, dict[tuple[str, Form | None], None]] = {}
    for number, text in enumerate(decode(read_bytes(file), file).split("\n"), 1):
        if text.strip():
            where = f"{file}: line {number}"
            line = check(parse(text, where), dict, where)
            asked = found.setdefault(named_file(file.parent, take(line, "image", str, where)), {})
            form = said_form(line, where)
            asked.update(dict.fromkeys((query, form) for query in _queries_of(line, where)))
    if not found:
        raise DataError(f"{file}: holds no query: write {{'image': ..., 'query': ...}} on every line")
    return [ToAsk(path, [query for query, _ in asked], [form for _, form in asked]) for path, asked in found.items()]


def _queries_of(line: dict[str, Any], where: str) -> list[str]:
    if ("query" in line) == ("queries" in line):
        raise DataError(f"{where}: expected one of the fields 'query' and 'queries'")
    said = line["queries"] if "queries" in line else [line["query"]]
    return list(dict.fromkeys(query.strip() for query in texts(said, f"{where}: queries")))
