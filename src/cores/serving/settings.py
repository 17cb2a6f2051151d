"""What a server allows and keeps, each number once."""

from dataclasses import dataclass

MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Limits of a server and its engine. Sizes in bytes, times in seconds.

    batch: most questions that are answered together.
    gather: how long a free worker waits for more requests to answer together with the first.
    waiting: most requests in the queue; the next one is refused with 503.
    cache: of the features of pictures that were seen.
    prefixes: pictures of which the language model's side is kept, too (0.2 GB each for 7B in 16 bits).
    max_pixels: of a picture; pixels_at_once: of all pictures that stand decoded in memory at one time.
    max_body: of a request; body_seconds: until all of it must have come; head_seconds: the same for its headers.
    send_seconds: until a client must have taken a piece of its answer.
    answer_seconds: until a request is given up with 504.
    max_queries: of a request; max_query: characters of each.
    max_requests: worked on at one time, those whose body is still coming included; the next one is refused with 503.
    connections: that may be open at one time.
    drain_seconds: that a server which is told to stop goes on answering what it has begun.
    rate: requests that one client may make in a minute, None: any number.
    page: is there a page for people, beside the interface for programs?
    about: a sentence about the model, for people who look at the page.
    api_keys: one of them must come with each request; none: no key is asked for.
    hosts: names by which requests may ask, `localhost` for all of this machine's own; none: any name.
    """

    batch: int = 16
    gather: float = 0.01
    waiting: int = 64
    cache: int = 512 * MEBIBYTE
    prefixes: int = 4
    max_pixels: int = 50_000_000
    pixels_at_once: int = 150_000_000
    max_body: int = 32 * MEBIBYTE
    body_seconds: float = 30.0
    head_seconds: float = 10.0
    send_seconds: float = 30.0
    answer_seconds: float = 300.0
    max_queries: int = 16
    max_query: int = 2000
    max_requests: int = 128
    connections: int = 1000
    drain_seconds: float = 60.0
    rate: float | None = None
    page: bool = True
    about: str = ""
    api_keys: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
