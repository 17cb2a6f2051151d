"""What weights a run stands on: a changed base is found before anything is loaded over it."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from cores.errors import CheckpointError

WEIGHTS = ("*.safetensors", "*.bin", "base.json")  # base.json: the base of a checkpoint that is itself a base


def fingerprint_of(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over the names, dtypes, shapes and numbers of tensors."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        total.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return f"sha256:{total.hexdigest()}"


def fingerprint(folder: Path) -> str:
    """sha256 over the names and contents of a folder's weight files. Raises CheckpointError when it has none."""
    files = sorted(file for pattern in WEIGHTS for file in folder.glob(pattern))
    if not files:
        raise CheckpointError(f"{folder}: holds no weights, expected *.safetensors")
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            total.update(f"{file.name} {hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode())
    return f"sha256:{total.hexdigest()}"
