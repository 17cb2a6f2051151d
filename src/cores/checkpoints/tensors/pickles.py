"""PyTorch's own files (.bin, .pth, .pt) are pickles, which can run programs. Here they cannot: only tensors are read.

Always `weights_only=True`: whatever else a file asks for is refused by its name, and nothing of it is run.
"""

import pickle
import pickletools
import re
import struct
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from cores.errors import CheckpointError

ZIP = b"PK\x03\x04"
REFUSED = re.compile(r"[Uu]nsupported (?:GLOBAL|global:? GLOBAL|class) (\S+)|GLOBAL (\S+) was not an allowed")


class Inert:
    """Stands for an object of somebody's class in a file: holds what is said about it, and does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args = args


def is_zip(file: Path) -> bool:
    """Is it of the kind that PyTorch writes since 1.6, which can be mapped into memory?"""
    with file.open("rb") as content:
        return content.read(len(ZIP)) == ZIP


def read_pickle(file: Path, only_shapes: bool = False, inert: Sequence[str] = ()) -> Any:
    """What `torch.load` reads, mapped into memory where that can be, or on the meta device (`only_shapes`).

    `inert`: full names of classes whose objects become `Inert`, one stand-in for each.
    Raises CheckpointError that names what the file asks to be run, or why it cannot be read.
    """
    # one class a name: the unpickler tells them apart by identity
    stand_ins: list[Any] = [(type(name.rpartition(".")[2], (Inert,), {}), name) for name in inert]
    try:
        with torch.serialization.safe_globals(stand_ins), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of other pickle protocols: they are read or refused
            place: dict[str, Any] = {"map_location": "meta"} if only_shapes else {"map_location": "cpu"}
            return torch.load(file, weights_only=True, mmap=is_zip(file) and not only_shapes, **place)
    except pickle.UnpicklingError as error:
        if told := _no_weights(file):
            raise CheckpointError(f"{file}: is {told}, and no weights: download it again") from None
        raise CheckpointError(
            f"{file}: refused: it asks to run {asked_for(file, str(error))}. Nothing was run. Weights need nothing of "
            "the kind: do not trust this file, get the weights as safetensors or from their author"
        ) from None
    except FileNotFoundError:
        raise CheckpointError(f"{file}: there is no such file") from None
    except (
        RuntimeError,
        EOFError,
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        IndexError,
        OSError,
        struct.error,
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{file}: is damaged or no file of PyTorch's ({reason}): download it again") from None


def _no_weights(file: Path) -> str | None:
    """What a download leaves that did not bring the file itself, by how it begins."""
    with file.open("rb") as content:
        begins = content.read(64).lstrip().lower()
    if begins.startswith(b"version https://git-lfs"):
        return "a Git-LFS pointer"
    return "a web page" if begins.startswith((b"<!doctype", b"<html")) else None


def asked_for(file: Path, message: str = "") -> str:
    """What a pickle would call, by name, found without calling it."""
    names = sorted(set(globals_of(file)))
    match = REFUSED.search(message)
    if match:
        short = next(name for name in match.groups() if name).rstrip(".,")
        return next((name for name in names if name.endswith(short)), short)
    others = [name for name in names if not name.startswith(("torch.", "collections."))]
    return ", ".join(others) or f"something that is not tensors ({message.splitlines()[0] if message else 'unknown'})"


def globals_of(file: Path) -> list[str]:
    """The names of everything that a file's pickle would import."""
    found: list[str] = []
    texts: list[str] = []
    try:
        if is_zip(file):
            with zipfile.ZipFile(file) as archive:
                name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
                content = archive.read(name)
        else:
            content = file.read_bytes()
        for code, argument, _ in pickletools.genops(content):
            if code.name == "GLOBAL":
                found.append(str(argument).replace(" ", "."))
            elif code.name == "STACK_GLOBAL" and len(texts) > 1:
                found.append(".".join(texts[-2:]))
            elif isinstance(argument, str):
                texts.append(argument)
    except (ValueError, StopIteration, zipfile.BadZipFile, OSError):
        pass  # what was found until there is what can be said
    return found
