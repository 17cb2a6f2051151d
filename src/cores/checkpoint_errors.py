"""What libraries raise over a model's files that they cannot use, as one error with the file's name.

transformers, tokenizers, PEFT and torch raise errors of every class there is over a config that says nonsense, Rust's
panics among them. No list of classes would be whole; so inside, only somebody else's code runs on somebody's files.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cores.errors import CheckpointError, CoresError

LONGEST = 300  # letters of a library's own words


@contextmanager
def checkpoint_errors(where: str | Path, what: str = "be read", advice: str = "is it whole?") -> Iterator[None]:
    """Raises CheckpointError, beginning with `where`, for whatever is raised inside but for errors of our own."""
    try:
        yield
    except (CoresError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a panic of Rust's is no Exception
        raise CheckpointError(f"{where}: cannot {what} ({in_words(error)}); {advice}") from None


def in_words(error: BaseException) -> str:
    """What an error says, in one line of bounded length, with its class where it says too little."""
    said = " ".join(str(error).split())
    kind = type(error).__name__
    if not said or isinstance(error, KeyError | IndexError | AttributeError | TypeError | AssertionError):
        said = f"{kind}: {said}" if said else kind
    return said if len(said) <= LONGEST else f"{said[:LONGEST]}..."
