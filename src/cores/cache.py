"""Where this program keeps what it can make again: in $CORES_CACHE, else ~/.cache/cores. It may be deleted."""

import os
from pathlib import Path

from cores.errors import UserError


def cache_folder(name: str) -> Path:
    """The folder of this name, made where there is none. Raises UserError when nothing can be written there."""
    given, base = os.environ.get("CORES_CACHE"), os.environ.get("XDG_CACHE_HOME")
    home = Path(given) if given else Path(base or Path.home() / ".cache") / "cores"
    try:
        (home / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{home}: cannot be written ({error.strerror}): set CORES_CACHE to another folder") from None
    return home / name
