"""Files that were damaged or made to harm, by the hundred, against every reader that a library stands behind.

Each is read in a process of its own with bounded memory: it gives a value or a CoresError, quickly, whatever is in it.
A crash inside of a library, which no `except` sees, ends that process and is a failure here.
"""

import io
import json
import pickle
import pickletools
import resource
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

CASES = 600  # of each kind
MEMORY = 4 << 30  # bytes of addresses; pyarrow and numpy alone take one
SECONDS = 20  # for one file
INTERESTING = (0, 1, 0x7F, 0x80, 0xFF)


# -- in the process that reads ---------------------------------------------------------------------------------------


def read_table(path: Path) -> None:
    from cores.data.sources import open_source
    from cores.masks import decode

    for sample in open_source(f"hf:{path}"):
        for talk in sample.conversations:
            for target in talk.turns[0].targets:
                decode(target.mask)


def read_pickle(path: Path) -> None:
    from cores.data.formats.json_files import short
    from cores.data.formats.unpickle import read_pickle

    short(read_pickle(path))


def read_archive(path: Path) -> None:
    from cores.data.fetch.unpack import unpack

    home = path.with_name(f"{path.name}-out")
    home.mkdir()
    unpack(path, home, {"": "in/"}, lambda size: None)


def read_picture(path: Path) -> None:
    from cores.data.formats.mask_pixels import read_inside
    from cores.data.formats.picture_headers import decode_check, read_header

    read_header(path)
    decode_check(path)
    read_inside(path)


def read_catalog(path: Path) -> None:
    from cores.data.fetch.catalog import read_catalog

    read_catalog(path)


def main(kind: str) -> None:
    """Read the files that stdin names; say what became of each."""
    from cores.errors import CoresError

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for line in sys.stdin:
        path, began = Path(line.strip()), time.monotonic()
        sys.stdout.write(f"begin {path.name}\n")
        sys.stdout.flush()
        try:
            globals()[f"read_{kind}"](path)
            found = "read"
        except CoresError as error:
            found = "refused" if len(str(error)) < 1000 else f"WRONG: an error of {len(str(error))} letters"
        except BaseException as error:
            found = f"WRONG: {type(error).__name__}: {error}"
        if time.monotonic() - began > SECONDS:
            found = f"WRONG: {time.monotonic() - began:.0f} seconds"
        sys.stdout.write(f"{found}\n".replace("\n", " ", found.count("\n")))


# -- what is read ----------------------------------------------------------------------------------------------------


def tables() -> dict[str, bytes]:
    """The same rows in every container: two forms of Arrow, Parquet with and without checksums."""
    file = io.BytesIO()
    Image.fromarray(np.arange(600, dtype=np.uint8).reshape(20, 30)).save(file, "PNG")
    masks = [(np.indices((20, 30))[1] < 6).tolist(), None]
    rows = pa.table(
        {
            "image": [{"bytes": file.getvalue(), "path": "x.png"}] * 2,
            "text": ["a?", "the b"],
            "mask": pa.array(masks, pa.list_(pa.list_(pa.bool_()))),
            "is_sentence": [True, None],
        }
    )
    stream, whole, packed, plain, checked = (io.BytesIO() for _ in range(5))
    with pa.ipc.new_stream(stream, rows.schema) as writer:
        writer.write_table(rows)
    with pa.ipc.new_file(whole, rows.schema) as writer:
        writer.write_table(rows)
    with pa.ipc.new_file(packed, rows.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(rows)
    pq.write_table(rows, plain)
    pq.write_table(rows, checked, write_page_checksum=True, compression="zstd")
    forms = {"a.arrow": stream, "b.arrow": whole, "c.arrow": packed, "d.parquet": plain, "e.parquet": checked}
    return {name: form.getvalue() for name, form in forms.items()}


def pickles() -> dict[str, bytes]:
    value = [{"ref": n, "at": (n, n + 1), "words": ["the", "lid"], "far": 1 << 70, "of": 2.5} for n in range(20)]
    return {f"p{protocol}": pickle.dumps(value, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)}


def archives() -> dict[str, bytes]:
    members = {"a.txt": b"hello " * 50, "sub/b.bin": bytes(range(256)) * 9, "n" * 120: b"x" * 700}
    made = {}
    for kind in ("", ":gz", ":bz2", ":xz"):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode=f"w{kind}") as tar:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        made[f"tar{kind[1:]}"] = file.getvalue()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, content in members.items():
            zipped.writestr(name, content)
    return made | {"zip": file.getvalue()}


def pictures() -> dict[str, bytes]:
    image = Image.fromarray(((np.indices((20, 30))[1] < 6) * 255).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    made = {}
    for kind in ("PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP"):
        file = io.BytesIO()
        image.save(file, kind, **({} if kind in ("GIF", "BMP") else {"exif": exif}))
        made[kind] = file.getvalue()
    return made


def catalogs() -> dict[str, bytes]:
    files = [{"url": "http://x/f", "into": {"a": "b"}, "md5": "0", "size": 7, "gigabytes": 1.5}]
    return {"c": json.dumps({"about": "", "mine": {"title": "T", "license": "L", "files": files}}).encode()}


def spoilt(content: bytes, rng: np.random.Generator) -> bytes:
    """Bytes changed, cut off, doubled or exchanged."""
    made = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 5])):
        place = int(rng.integers(len(made)))
        made[place] = int(rng.choice(INTERESTING) if rng.random() < 0.5 else rng.integers(256))
    if rng.random() < 0.15:
        del made[int(rng.integers(len(made))) :]
    if rng.random() < 0.1:
        begin, end = sorted(rng.integers(len(made) + 1, size=2).tolist())
        made[begin:begin] = made[begin:end]
    return bytes(made)


def invented_pickles(rng: np.random.Generator) -> bytes:
    """Steps of the pickle machine in any order, with arguments of the right length."""
    made = bytearray()
    for _ in range(int(rng.integers(1, 60))):
        step = pickletools.opcodes[rng.integers(len(pickletools.opcodes))]
        made += step.code.encode("latin-1")
        size = 0 if step.arg is None else step.arg.n
        if size > 0:
            made += rng.integers(256, size=size, dtype=np.uint8).tobytes()
        elif size == pickletools.UP_TO_NEWLINE:
            made += b"%d\n" % rng.integers(20) * (2 if step.name in ("GLOBAL", "INST") else 1)
        elif size:
            made += b"\x02" + bytes(3 if size != pickletools.TAKEN_FROM_ARGUMENT1 else 0) + b"ab"
    return bytes(made) + b"."


KINDS = {"table": tables, "pickle": pickles, "archive": archives, "picture": pictures, "catalog": catalogs}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_in_a_file_it_is_read_or_refused(tmp_path, kind):
    rng = np.random.default_rng(0)
    paths = []
    for name, content in KINDS[kind]().items():
        for number in range(CASES // len(KINDS[kind]()) + 1):
            stem, dot, suffix = name.partition(".")
            paths.append(tmp_path / f"{stem}-{number}{dot}{suffix}")
            paths[-1].write_bytes(spoilt(content, rng) if number else content)
    if kind == "pickle":
        for number in range(CASES * 3):
            paths.append(tmp_path / f"invented-{number}")
            paths[-1].write_bytes(invented_pickles(rng))
    done = subprocess.run(
        [sys.executable, __file__, kind], input="\n".join(map(str, paths)), text=True, capture_output=True, timeout=300
    )
    lines = done.stdout.splitlines()
    wrong = [f"{name}: {found}" for name, found in zip(lines[::2], lines[1::2], strict=False) if "WRONG" in found]
    assert not wrong, "\n".join(wrong)
    assert done.returncode == 0, f"{lines[-1]} ended the process: {done.returncode} {done.stderr[-500:]}"
    assert len(lines) == 2 * len(paths)
    whole = [found for path, found in zip(paths, lines[1::2], strict=True) if "-0" in path.name]
    assert whole[: len(KINDS[kind]())] == ["read"] * len(KINDS[kind]()), "what was not spoilt is read"
    assert "refused" in lines[1::2]


if __name__ == "__main__":
    main(sys.argv[1])
