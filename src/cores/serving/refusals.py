"""Why a server does not answer now, though nothing is wrong with the request."""

from cores.errors import CoresError


class Busy(CoresError):
    """Too many requests are waiting. `retry_after`: seconds, until it is worth asking again."""

    def __init__(self, retry_after: int = 1) -> None:
        super().__init__(f"too many requests are waiting: ask again in {retry_after} s")
        self.retry_after = retry_after


class Closing(CoresError):
    """The server is going down, and takes nothing new."""

    def __init__(self) -> None:
        super().__init__("the server is going down: ask another, or this one when it is back")
