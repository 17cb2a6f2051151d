"""Models by the name of a folder or of a repository on a hub, such as `xinlai/LISA-7B-v1` or `owner/name@v1`.

A download goes through huggingface_hub: it is kept in its cache, goes on where it was cut off, and respects
HF_ENDPOINT, HF_HUB_OFFLINE and HF_TOKEN.
"""

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from cores.errors import CheckpointError

NAME = re.compile(r"(?P<name>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[\w./-]+))?")
ABOUT = ("*.json", "*.model", "*.txt", "*.jinja")
WEIGHTS = (("model*.safetensors", "model.safetensors.index.json"), ("pytorch_model*.bin", "*.bin.index.json"))
FEW = 4  # files at a time


def is_hub_name(name: str | Path) -> bool:
    """Could it be the name of a repository? A folder of the same name comes first."""
    return NAME.fullmatch(str(name)) is not None


def fetch(name: str | Path, revision: str | None = None, **how: Any) -> Path:
    """A folder or file as it is; else the hub's repository of this name, downloaded. `@` begins a revision.

    Args: `revision`: where the name has none; `how`: as `download`'s.
    Of weights in both kinds, the safetensors are taken. Raises CheckpointError that says why it cannot be had.
    """
    path = Path(name)
    if path.exists():
        return path
    match = NAME.fullmatch(str(name))
    if not match:
        raise CheckpointError(f"{name}: there is no such file or folder, and a hub id looks like owner/name@revision")
    return download(match["name"], match["revision"] or revision, **how)


def download(
    name: str,
    revision: str | None = None,
    *,
    weights: bool = True,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> Path:
    """The repository's config and tokenizer, and its `weights`, as a folder of the hub's cache.

    Args: the last three as huggingface_hub's. Raises CheckpointError when the repository or revision is not there, may
    not be read, or can neither be downloaded nor be found in the cache.
    """
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    called = f"{name}@{revision}" if revision else name
    wanted: Sequence[str] = (*ABOUT, *(pattern for kind in WEIGHTS for pattern in kind if weights))
    silent = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else ""
    if local_files_only:
        silent = "local_files_only is set"
    try:
        if not silent:
            listed = HfApi(token=token).list_repo_files(name, revision=revision)
            wanted = choose(listed) if weights else [file for file in choose(listed) if is_about(file)]
    except GatedRepoError:
        raise CheckpointError(
            f"{called}: its terms have to be accepted on its page first; then set HF_TOKEN"
        ) from None
    except RevisionNotFoundError:
        raise CheckpointError(f"{called}: the repository is there, but it has no revision {revision}") from None
    except RepositoryNotFoundError:
        raise CheckpointError(
            f"{called}: is no folder here and no repository on the hub (a private one wants HF_TOKEN)"
        ) from None
    except Exception as error:  # of the network, in whatever library the hub's client has beneath it
        silent = f"the hub cannot be reached ({_first(error)})"
    try:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                allow_patterns=list(wanted),
                max_workers=FEW,
                local_files_only=bool(silent),
                cache_dir=cache_dir,
                token=token,
            )
        )
    except LocalEntryNotFoundError as error:
        reason = silent or _first(error)
        raise CheckpointError(f"{called}: is no folder here and not in the hub's cache, and {reason}") from None
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{called}: the download broke off ({_first(error)}); the same command goes on where it stopped"
        ) from None


def choose(files: Iterable[str]) -> list[str]:
    """Of a repository's files those that are read: about the model, and its weights in one kind."""
    files = [file for file in files if "/" not in file]
    about = [file for file in files if is_about(file)]
    for kind in WEIGHTS:
        found = [file for file in files if any(fnmatch(file, pattern) for pattern in kind)]
        if any(not file.endswith(".json") for file in found):
            others = {file for file in about if file.endswith(".index.json")} - set(found)
            return sorted({*about, *found} - others)
    return sorted(about)


def is_about(file: str) -> bool:
    """Is it a file about a model, and none of its weights?"""
    return any(fnmatch(file, pattern) for pattern in ABOUT)


def _first(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
