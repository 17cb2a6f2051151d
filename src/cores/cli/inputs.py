"""Pictures and queries as they are named on a command line: files, folders, patterns, files of queries."""

import glob
from pathlib import Path

from cores.data.formats.picture_headers import SUFFIXES
from cores.errors import DataError, UserError


def find_pictures(named: list[str]) -> list[Path]:
    """The pictures that arguments name, in their order, each once.

    A folder stands for the pictures directly in it, a pattern for what it matches ("**" for folders at any depth),
    both sorted by name and by suffix; anything else is taken as a file. Raises UserError for a folder or pattern
    without a picture, and for a URL.
    """
    from cores.inference.picturelike import refuse_address

    found: list[Path] = []
    for name in named:
        refuse_address(name)
        path = Path(name)
        if path.is_dir():
            inside = [file for file in sorted(path.iterdir()) if _is_picture(file)]
            if not inside:
                raise UserError(f"{name}: there is no picture in this folder ({', '.join(SUFFIXES)})")
        elif glob.has_magic(name) and not path.exists():
            inside = [Path(file) for file in sorted(glob.glob(name, recursive=True)) if _is_picture(Path(file))]
            if not inside:
                raise UserError(f"{name}: no picture has such a name ({', '.join(SUFFIXES)})")
        else:
            inside = [path]
        found += inside
    return list(dict.fromkeys(found))


def _is_picture(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()


def names_of(images: list[Path]) -> list[str]:
    """A name for each picture's results: its own without the suffix, with a number where that is taken."""
    names: list[str] = []
    taken: set[str] = set()
    for path in images:
        name, number = path.stem, 1
        while name.lower() in taken:  # some file systems hold Cup and cup to be one
            number += 1
            name = f"{path.stem}-{number}"
        taken.add(name.lower())
        names.append(name)
    return names


def read_queries(file: Path) -> list[str]:
    """The queries of a text file, one a line; empty lines are left out.

    Raises DataError when it cannot be read, is no UTF-8, or holds none.
    """
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except FileNotFoundError:
        raise DataError(f"--queries {file}: there is no such file") from None
    except IsADirectoryError:
        raise DataError(f"--queries {file}: is a folder, a text file was expected") from None
    except UnicodeDecodeError as error:
        raise DataError(f"--queries {file}: is not UTF-8 (byte {error.start}): save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"--queries {file}: cannot be read: {error.strerror}") from None
    queries = [line.strip() for line in lines if line.strip()]
    if not queries:
        raise DataError(f"--queries {file}: holds no query: write one on every line")
    return queries
