"""How many requests one client may make: so many a minute, spread as it likes."""

import math
from collections import OrderedDict
from time import monotonic

CLIENTS = 10_000  # that are remembered: forgetting the one that was silent longest favours nobody who asks on


class RateLimit:
    """`rate`: requests a minute; a client that was silent for a minute may make all of them at once."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # requests left, and when that was

    def wait(self, client: str) -> int:
        """Count a request. 0: it may be made; else it may not, and the client has to wait so many seconds."""
        now = monotonic()
        left, since = self._left.pop(client, (max(self.rate, 1.0), now))
        left = min(max(self.rate, 1.0), left + (now - since) * self.rate / 60)
        allowed = left >= 1
        self._left[client] = (left - 1 if allowed else left, now)
        if len(self._left) > CLIENTS:
            self._left.popitem(last=False)
        return 0 if allowed else math.ceil((1 - left) * 60 / self.rate)
