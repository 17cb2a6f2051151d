"""Files fetched over HTTP: resumed where they broke off, checked before anything is done with them."""

import errno
import hashlib
import json
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse, InvalidURL
from pathlib import Path

from tqdm import tqdm

from cores.data.fetch.catalog import Entry, RemoteFile
from cores.data.fetch.unpack import unpack
from cores.data.formats.json_files import short
from cores.errors import DataError

FOLDER = ".downloads"  # below the data directory: parts of files, and what has been done
DONE = "done.json"
TRIES = 8  # in a row without a new byte
PAUSE = 1.0  # seconds before the second try, doubled every time
TIMEOUT = 60.0
BLOCK = 1 << 20


def download(entry: Entry, home: Path, *, keep: bool = False, progress: bool = True, pause: float = PAUSE) -> int:
    """Fetch, check and unpack the files of an entry; gives how many were fetched, those already done not counted.

    Args: `home`: the data directory; `keep`: leave archives in it after unpacking; `pause`: seconds before a second
    try. An interrupted call goes on where it stopped. Raises DataError as `fetch` and `unpack`, and for a file whose
    place is outside of `home` or is a folder.
    """
    parts = home / FOLDER
    parts.mkdir(parents=True, exist_ok=True)
    fetched = 0
    for file in entry.files:
        if _mark(file) in _done(parts):
            continue
        path = fetch(file, parts, progress=progress, pause=pause)
        if isinstance(file.into, str):
            target = (home / file.into).resolve()
            if not target.is_relative_to(home.resolve()):
                raise DataError(f"{file.url}: would be written to {target}, outside of {home}: refused")
            if target.is_dir():
                raise DataError(f"{file.url}: would be written over the folder {target}: take that away first")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(path, target)
        else:
            with tqdm(desc=f"unpacking {file.name}", unit="B", unit_scale=True, disable=not progress) as bar:
                unpack(path, home, file.into, bar.update)
            if not keep:
                path.unlink()
        done = sorted({*_done(parts), _mark(file)})
        (parts / DONE).write_text(json.dumps(done, indent=2), "utf-8")
        fetched += 1
    return fetched


def fetch(file: RemoteFile, folder: Path, *, progress: bool = True, pause: float = PAUSE) -> Path:
    """A file in this folder, whole and checked. Raises DataError when it cannot be had or is another one.

    Args: `pause`: seconds before a second try, doubled every time.
    """
    path = folder / re.sub(r"[^\w.+-]", "_", file.name)
    part = path.with_name(f"{path.name}.part")
    if path.is_file() and _fault(path, file) is None:
        return path
    with tqdm(desc=path.name, unit="B", unit_scale=True, total=file.size, disable=not progress) as bar:
        _fetch(file.url, part, bar, pause)
    fault = _fault(part, file)
    if fault is not None:
        part.unlink()
        raise DataError(f"{file.url}: {fault}; what was fetched has been deleted: try again later, or get it by hand")
    part.replace(path)
    return path


def _fetch(url: str, part: Path, bar: tqdm, pause: float) -> None:
    """Fetch until the server has said all, going on after what is there already."""
    tries, reason = 0, ""
    while tries < TRIES:
        before = part.stat().st_size if part.exists() else 0
        try:
            if _attempt(url, part, bar):
                return
            reason = "the connection broke off"
        except urllib.error.HTTPError as error:
            if error.code == 416 and before:  # nothing behind what is there: start again, it may be another file
                part.unlink()
            elif error.code not in (408, 425, 429) and error.code < 500:
                raise DataError(f"{url}: the server says {error.code} {error.reason}") from None
            reason = f"the server says {error.code} {error.reason}"
        except DataError:
            raise
        except (ValueError, InvalidURL) as error:  # nonsense stays nonsense: no second try
            raise DataError(f"{url}: cannot be fetched: {error}") from None
        except (urllib.error.URLError, HTTPException, OSError) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            reason = str(getattr(error, "reason", error))
        grown = part.exists() and part.stat().st_size > before
        tries = 0 if grown else tries + 1
        time.sleep(0 if grown else pause * 2 ** (tries - 1))
    raise DataError(f"{url}: cannot be fetched ({reason}), {TRIES} tries in a row: what is there is kept, try later")


def _attempt(url: str, part: Path, bar: tqdm) -> bool:
    """One request; was it answered to the end?"""
    if not url.startswith(("http://", "https://")):
        raise DataError(f"{url}: is no http or https address")
    note = part.with_name(f"{part.name}.etag")
    there = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "cores", "Accept-Encoding": "identity"}
    if there:
        headers["Range"] = f"bytes={there}-"
        if note.exists():
            headers["If-Range"] = note.read_text("ascii", "replace").strip()
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        start, total = _extent(answer, there)
        if start != there:  # it sends from the beginning
            start = 0
        tag = answer.headers.get("ETag", "")
        if tag.isascii() and tag.isprintable() and tag.startswith('"'):
            note.write_text(tag, "utf-8")
        else:
            note.unlink(missing_ok=True)
        bar.reset(total)
        bar.update(start)
        with part.open("r+b" if start else "wb") as target:
            target.seek(start)
            target.truncate()
            got, ended = _copy(answer, target.write, bar)
    whole = ended if total is None else start + got == total
    if whole:
        note.unlink(missing_ok=True)
    return whole


def _extent(answer: HTTPResponse, there: int) -> tuple[int, int | None]:
    """Where what is sent begins, and the length of the whole file when it is said.

    Raises ValueError when it is said as no number, HTTPException for an answer to another question.
    """
    length = answer.headers.get("Content-Length")
    if answer.status == 200:
        if length and not re.fullmatch(r"[0-9]{1,18}", length.strip()):
            raise ValueError(f"the server says that it is {short(length)} bytes long")
        return 0, int(length) if length else None
    said = re.fullmatch(r"bytes ([0-9]{1,18})-[0-9]+/([0-9]{1,18}|\*)", answer.headers.get("Content-Range", ""))
    if answer.status != 206 or said is None or int(said[1]) not in (0, there):
        raise HTTPException(f"an answer that was not asked for: {answer.status} {answer.headers.get('Content-Range')}")
    return int(said[1]), None if said[2] == "*" else int(said[2])


def _copy(answer: HTTPResponse, write: Callable[[bytes], object], bar: tqdm) -> tuple[int, bool]:
    """How many bytes arrived, and whether the answer came to its end instead of breaking off."""
    got = 0
    while True:
        try:
            block = answer.read1(BLOCK)
        except (HTTPException, OSError):
            return got, False
        if not block:
            return got, True
        write(block)
        got += len(block)
        bar.update(len(block))


def _fault(path: Path, file: RemoteFile) -> str | None:
    """What is wrong with a fetched file, as far as that is known."""
    size = path.stat().st_size
    if file.size is not None and size != file.size:
        return f"is {size} bytes long, expected {file.size}"
    if size == 0:
        return "is empty"
    for name, wanted in (("md5", file.md5), ("sha256", file.sha256)):
        if wanted:
            with path.open("rb") as opened:
                found = hashlib.file_digest(opened, name).hexdigest()
            if found != wanted:
                return f"its {name} is {found}, expected {wanted}"
    with path.open("rb") as opened:
        begin = opened.read(256).lstrip().lower()
    if begin.startswith((b"<!doctype html", b"<html")):
        return "is a web page, not the file"
    return None


def _mark(file: RemoteFile) -> str:
    return f"{file.url} -> {json.dumps(file.into)}"


def _done(parts: Path) -> list[str]:
    try:
        found = json.loads((parts / DONE).read_text("utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return []
    return [mark for mark in found if isinstance(mark, str)] if isinstance(found, list) else []
