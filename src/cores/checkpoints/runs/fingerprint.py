"""What weights and settings a model stands on: a changed one is found before its answers are mixed with the old."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from cores.errors import CheckpointError

SETTINGS = ("*.json", "*.jinja", "*.model", "*.txt")  # configs, prompt, tokenizer, confidence
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
    files = sorted(file for pattern in WEIGHTS for file in folder.glob(pattern) if file.is_file())
    if not files:
        raise CheckpointError(f"{folder}: holds no weights, expected *.safetensors")
    return _digest(files)


def settings_fingerprint(folder: Path) -> str:
    """The same of all else that a model's answers depend on: its configs, prompt, tokenizer and confidence."""
    return _digest(sorted(file for pattern in SETTINGS for file in folder.glob(pattern) if file.is_file()))


def _digest(files: Sequence[Path]) -> str:
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            total.update(f"{file.name} {hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode())
    return f"sha256:{total.hexdigest()}"
