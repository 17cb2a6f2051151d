"""Safetensors files written tensor by tensor, so that no more than one of them is in memory.

The format: 8 bytes with the header's length, a JSON header with dtype, shape and place of every tensor, the numbers.
The library writes a file only from tensors that are all in memory; that is the reason for this file.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import torch
from torch import Tensor

from cores.checkpoints.tensors.lazy import DTYPES
from cores.errors import CheckpointError

MAX_SHARD = 5 * 10**9
NAMES = {dtype: name for name, dtype in DTYPES.items()}


class Item(NamedTuple):
    """A tensor that will be written."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def size(self) -> int:
        """Its numbers in bytes."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


def write_shards(
    folder: Path, items: Iterable[Item], read: Callable[[str], Tensor], stem: str = "model", most: int = MAX_SHARD
) -> None:
    """Write tensors, in their order, to one safetensors file, or to several of at most `most` bytes and an index.

    `read` gives each of them once, with the shape of its item; it is stored in the item's dtype. Raises
    CheckpointError for another shape, and for numbers that the dtype cannot hold.
    """
    groups = list(split(items, most))
    names = [f"{stem}.safetensors"]
    if len(groups) > 1:
        names = [f"{stem}-{number:05d}-of-{len(groups):05d}.safetensors" for number in range(1, len(groups) + 1)]
    for name, group in zip(names, groups, strict=True):
        with (folder / name).open("wb") as file:
            place = write_header(file, group)
            for item in group:
                file.seek(place[item.name])
                file.write(_bytes(read(item.name), item))
    if len(groups) > 1:
        index = {
            "metadata": {"total_size": sum(item.size for group in groups for item in group)},
            "weight_map": {item.name: name for name, group in zip(names, groups, strict=True) for item in group},
        }
        text = json.dumps(index, indent=1) + "\n"
        (folder / f"{stem}.safetensors.index.json").write_text(text, encoding="utf-8")


def split(items: Iterable[Item], most: int) -> Iterator[list[Item]]:
    """Groups of at most `most` bytes, in order; a tensor that is larger stands alone. At least one group."""
    group: list[Item] = []
    for item in items:
        if group and sum(one.size for one in group) + item.size > most:
            yield group
            group = []
        group.append(item)
    yield group


def write_header(file: BinaryIO, group: list[Item]) -> dict[str, int]:
    """Write the header of a file of these tensors; gives, by name, at which byte of the file each one begins."""
    # wide numbers first, so that each stands at a multiple of its width, whatever the order of writing
    ordered = sorted(group, key=lambda item: -item.dtype.itemsize)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offsets, end = {}, 0
    for item in ordered:
        offsets[item.name], end = end, end + item.size
        header[item.name] = {
            "dtype": NAMES[item.dtype],
            "shape": list(item.shape),
            "data_offsets": [offsets[item.name], end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    return {name: 8 + len(text) + offset for name, offset in offsets.items()}


def _bytes(value: Tensor, item: Item) -> memoryview:
    if tuple(value.shape) != item.shape:
        raise CheckpointError(f"{item.name}: its file says {item.shape}, it is {tuple(value.shape)}")
    flat = value.detach().to(item.dtype).contiguous().reshape(-1)
    if flat.dtype != value.dtype and bool(torch.isfinite(value).all()) and not bool(torch.isfinite(flat).all()):
        raise CheckpointError(
            f"{item.name}: holds numbers that {NAMES[item.dtype]} cannot: store it as bfloat16 or float32"
        )
    return flat.view(torch.uint8).numpy().data
