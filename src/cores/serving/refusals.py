"""What a server says instead of an answer: each refusal with its HTTP status."""

from collections.abc import Mapping

from cores.errors import CoresError, DataError, UserError


class Refusal(CoresError):
    """Said to a client in one sentence. `status`: of HTTP; `headers`: that go with it."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.headers = status, dict(headers or {})


class Busy(Refusal):
    """Too many requests are waiting."""

    def __init__(self, retry_after: int = 1) -> None:
        after = {"Retry-After": str(retry_after)}
        super().__init__(503, f"too many requests are waiting: ask again in {retry_after} s", after)


class Closing(Refusal):
    """The server is going down, and takes nothing new."""

    def __init__(self) -> None:
        after = {"Retry-After": "5", "Connection": "close"}
        super().__init__(503, "the server is going down: ask again when it is back", after)


def refusal_of(error: Exception) -> Refusal | None:
    """What to say of an error: the caller's mistakes in their own words; None for faults of ours."""
    if isinstance(error, Refusal):
        return error
    if type(error) in (UserError, DataError):  # not those of a checkpoint or a recipe, which name files
        return Refusal(422, str(error))
    return None
