"""API keys: as a bearer's token, as `X-API-Key`, or as the password that a browser asks for."""

import base64
import hashlib
import hmac
from collections.abc import Sequence

from starlette.datastructures import Headers


class Keys:
    """The keys of a server. None are given: every request passes."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [_digest(key) for key in keys]

    def passed(self, headers: Headers) -> str | None:
        """A short name of the key that came with a request, empty where none is asked for; None: it may not pass.

        Takes the same time whichever key is given, and however much of it is right.
        """
        if not self._digests:
            return ""
        digest = _digest(_given(headers))
        matches = [hmac.compare_digest(digest, own) for own in self._digests]
        return digest.hex()[:16] if any(matches) else None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _sent(value: str) -> str:
    """A header's value as who sent it wrote it: a server reads its bytes as Latin-1."""
    return value.encode("latin-1", "replace").decode("utf-8", "surrogateescape")


def _given(headers: Headers) -> str:
    """The key in a request's headers; empty where there is none."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return _sent(value.strip())
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode("utf-8").partition(":")[2]
        except ValueError:  # no base64, no ASCII, no UTF-8
            return ""
    return _sent(headers.get("x-api-key", ""))
