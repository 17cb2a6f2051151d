"""By which names a server may be asked.

A page from anywhere may let its own name point to 127.0.0.1 once it is open (DNS rebinding): the browser then takes
this server for the page's own, and hands over what it answers. The `Host` header still has the page's name.
"""

import ipaddress
from collections.abc import Sequence

LOOPBACK = "localhost"  # in `Settings.hosts`: every name that a machine has for itself alone


class Hosts:
    """`names`: each that requests may say in `Host`, whatever the port; none: any."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = {name_of(name) for name in names}

    def allowed(self, host: str) -> bool:
        """May a request with this `Host` header be answered?"""
        name = name_of(host)
        return not self._names or name in self._names or (LOOPBACK in self._names and is_loopback(name))


def name_of(host: str) -> str:
    """A `Host` header without its port, in small letters; of an address in brackets, what stands in them."""
    name = host.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name if name.count(":") > 1 else name.partition(":")[0].rstrip(".")


def is_loopback(name: str) -> bool:
    """Does this name or address reach nothing but the machine itself?"""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == LOOPBACK
