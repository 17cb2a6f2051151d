"""Tensors in files: what they are called, how large they are, and one of them when it is asked for.

Nothing is read before it is asked for, files are mapped into memory, and a mapping is dropped when enough of it has
been read: a checkpoint of any size passes through little memory.
"""

import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cores.checkpoints.tensors.pickles import is_zip, read_pickle
from cores.errors import CheckpointError
from cores.modeling.strict import NO_WEIGHTS, wrong_type

INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
SINGLES = ("model.safetensors", "pytorch_model.bin")
MAPPED = 256 * 2**20  # bytes that are read of a mapping before it is dropped

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "BOOL": torch.bool,
}  # fmt: skip


class Entry(NamedTuple):
    """A tensor before it is read. `made_of`: the keys in the files; `how`: what is done to them, empty for nothing."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    made_of: tuple[str, ...]
    how: str = ""


class Tensors(Mapping[str, Entry]):
    """Tensors by name, read one by one. `entries`: what each is, in order."""

    entries: dict[str, Entry]

    def __getitem__(self, key: str) -> Entry:
        return self.entries[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    @abstractmethod
    def tensor(self, key: str) -> Tensor:
        """The tensor, in its entry's shape and on the CPU. Raises CheckpointError when its file cannot be read."""


def wrong_types(tensors: Mapping[str, Entry]) -> list[str]:
    """Lines about tensors whose type no weight has. What is counted or computed is no weight."""
    weights = ((name, entry.dtype) for name, entry in tensors.items() if not name.endswith(NO_WEIGHTS))
    return [f"{name}: {wrong}" for name, dtype in weights if (wrong := wrong_type(dtype))]


class Opened(Protocol):
    """A file that is open: its tensors by name."""

    def __getitem__(self, key: str) -> Tensor: ...


class Shards(Tensors):
    """The tensors of one or several files, in the order of the files. One file is open at a time."""

    def __init__(self, files: list[Path]) -> None:
        """Raises CheckpointError when a file cannot be read, or two of them hold the same tensor."""
        self.entries: dict[str, Entry] = {}
        self.file_of: dict[str, Path] = {}
        self.opened: tuple[Path, Opened] | None = None
        self.touched = 0
        for file in files:
            for key, (shape, dtype) in headers(file).items():
                if key in self.entries:
                    raise CheckpointError(f"{file}: {key} is in {self.file_of[key].name}, too: take one of them away")
                self.entries[key] = Entry(shape, dtype, (key,))
                self.file_of[key] = file

    def tensor(self, key: str) -> Tensor:
        """The tensor, in its entry's shape; still mapped to its file where that can be."""
        file, entry = self.file_of[key], self.entries[key]
        if self.opened is None or self.opened[0] != file or (self.touched > MAPPED and is_mapped(file)):
            self.opened, self.touched = None, 0  # the old one goes before the new one comes
            self.opened = file, open_file(file)
        self.touched += torch.Size(entry.shape).numel() * entry.dtype.itemsize
        return self.opened[1][key].detach()


class _Safetensors:
    def __init__(self, file: Path) -> None:
        self.handle = safe_open(file, "pt")

    def __getitem__(self, key: str) -> Tensor:
        found: Tensor = self.handle.get_tensor(key)
        return found


def open_shards(path: Path) -> Shards:
    """The weights at a path: a file, or a folder with shards and their index, or with one file.

    Raises CheckpointError when there are none, one is missing, or one cannot be read.
    """
    return Shards([path] if path.is_file() else find_files(path))


def find_files(folder: Path) -> list[Path]:
    """The weight files of a folder: the one of the usual name, else those of its index, else the only one that there
    is; safetensors before pickles.

    Raises CheckpointError when there are none, one of the index is missing, or it is not clear which are meant.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: there is no such file or folder")
    for index, single in zip(INDEXES, SINGLES, strict=True):
        if (folder / single).is_file():  # of both, transformers loads this one
            return [folder / single]
        if (folder / index).is_file():
            return _indexed(folder / index)
    others = _weight_files(folder)
    if len(others) == 1:
        return others
    there = ", ".join(sorted(file.name for file in folder.iterdir())[:8]) or "nothing"
    raise CheckpointError(
        f"{folder}: expected weights ({' or '.join((*SINGLES, *INDEXES))}), found {there}; download it again, or name "
        "the file itself"
    )


def has_weights(folder: Path) -> bool:
    """Does a folder hold files of weights? One that was downloaded for its config alone holds none."""
    return bool(_weight_files(folder))


def _weight_files(folder: Path) -> list[Path]:
    kinds = ("*.safetensors", "*.bin", "*.pth", "*.pt")
    found = (file for kind in kinds for file in sorted(folder.glob(kind)))
    return [file for file in found if file.is_file()]  # a pipe would be waited for


def headers(file: Path) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shapes and dtypes of a file's tensors by name; no tensor is read.

    Raises CheckpointError when it cannot be read, is refused, or holds anything but tensors.
    """
    if file.suffix == ".safetensors":
        try:
            with safe_open(file, "pt") as handle:
                parts = {key: handle.get_slice(key) for key in handle.keys()}  # noqa: SIM118
                return {key: (tuple(part.get_shape()), _dtype(file, part.get_dtype())) for key, part in parts.items()}
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file}: cannot be read ({error}): download it again") from None
    found = _weights(read_pickle(file, only_shapes=True))
    if not isinstance(found, Mapping):
        raise CheckpointError(f"{file}: holds a {type(found).__name__}, expected tensors by name")
    wrong = [
        f"{key!r:.80} ({type(value).__name__})"
        for key, value in found.items()
        if not isinstance(value, Tensor) or not isinstance(key, str)
    ]
    if wrong:
        raise CheckpointError(f"{file}: expected tensors by name alone, found also {', '.join(wrong[:6])}")
    return {key: (tuple(value.shape), value.dtype) for key, value in found.items()}


def is_mapped(file: Path) -> bool:
    """Can the file be mapped into memory? Pickles of the oldest kind cannot: they are read whole."""
    return file.suffix == ".safetensors" or is_zip(file)


def open_file(file: Path) -> Opened:
    """Open a weight file, mapped where it can be. Raises CheckpointError for a pickle that is refused."""
    opened: Opened = _Safetensors(file) if file.suffix == ".safetensors" else _weights(read_pickle(file))
    return opened


def _weights(found: Any) -> Any:
    """What a pickle holds; without the wrapping of programs that save their weights as the one thing `model`."""
    return found["model"] if isinstance(found, Mapping) and found.keys() == {"model"} else found


def _dtype(file: Path, name: str) -> torch.dtype:
    if name not in DTYPES:
        raise CheckpointError(f"{file}: holds tensors of type {name}, expected one of {', '.join(DTYPES)}")
    return DTYPES[name]


def _indexed(index: Path) -> list[Path]:
    """The files that an index names, all of them there, with the tensors that it says."""
    try:
        places = json.loads(index.read_text("utf-8"))["weight_map"]
        names = {str(name): str(file) for name, file in places.items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{index}: cannot be read as an index of shards: {error!r}") from None
    files = sorted(set(names.values()))
    outside = [file for file in files if Path(file).name != file]
    if outside:
        raise CheckpointError(f"{index}: names files outside of its folder: {', '.join(outside)}")
    missing = [file for file in files if not (index.parent / file).is_file()]
    if missing:
        raise CheckpointError(
            f"{index.parent}: of {len(files)} shards there is no {', '.join(missing)}: download what is missing"
        )
    held = {file: headers(index.parent / file).keys() for file in files}
    lost = [name for name, file in names.items() if name not in held[file]]
    if lost:
        raise CheckpointError(f"{index}: says where {', '.join(sorted(lost))} would be, but the shards have no such")
    return [index.parent / file for file in files]
