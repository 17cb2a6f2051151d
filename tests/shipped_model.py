"""The model that comes with cores, loaded once a process."""

from functools import cache

import cores
from cores import Cores


@cache
def shipped() -> Cores:
    found = cores.load()
    assert isinstance(found, Cores)
    return found
