"""What every tensor of a folder was when it was saved: a digest of each, so that a change is told by its name."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from cores.checkpoints.tensors.lazy import Tensors, open_shards
from cores.errors import CheckpointError
from cores.modeling.strict import fault

FILE = "digests.json"


def digest(value: Tensor) -> str:
    """Of a tensor's type, shape and numbers: the first 16 hexadecimal digits of a sha256."""
    found = hashlib.sha256(f"{value.dtype} {tuple(value.shape)}".encode())
    found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()[:16]


def write_digests(folder: Path) -> None:
    """Write `digests.json` beside the weights of a folder. Raises CheckpointError when they cannot be read."""
    tensors = open_shards(folder)
    found = {name: digest(tensors.tensor(name)) for name in tensors}
    (folder / FILE).write_text(json.dumps(found, indent=0) + "\n", encoding="utf-8")


def read_digests(folder: Path) -> dict[str, str] | None:
    """What `write_digests` wrote, by tensor; None where the folder was saved without.

    Raises CheckpointError when it cannot be read.
    """
    file = folder / FILE
    if not file.is_file():
        return None
    try:
        found = json.loads(file.read_text("utf-8"))
        return {str(name): str(text) for name, text in found.items()}
    except (OSError, ValueError, RecursionError, AttributeError) as error:
        raise CheckpointError(f"{file}: cannot be read as digests of tensors: {error}") from None


def stored_faults(tensors: Tensors, saved: Mapping[str, str] | None) -> list[str]:
    """Read every tensor once. Gives a line for each that holds no usable numbers, or others than were saved.

    `saved`: as `read_digests`; None compares nothing. Raises CheckpointError when a file cannot be read.
    """
    found = []
    for name in tensors:
        value = tensors.tensor(name)
        wrong = fault(value, name)
        if wrong is None and name.endswith(".weight") and not bool(value.any()):
            wrong = "is zero everywhere"
        if wrong is None and saved is not None and saved.get(name) != digest(value):
            wrong = "is not what was saved" if name in saved else "was not there when the model was saved"
        if wrong is not None:
            found.append(f"{name}: {wrong}")
    return found
