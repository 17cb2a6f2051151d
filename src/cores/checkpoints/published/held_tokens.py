"""The tokens that a published folder adds to its `tokenizer.model`: what three files say, held to the embedding table.

`added_tokens.json` is what the published programs write; later versions of their library say the same in
`tokenizer_config.json` or in `tokenizer.json`. A token that is overlooked moves the ids of all that come behind it.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from cores.checkpoints.configs import read_json
from cores.errors import CheckpointError

ADDED, SETTINGS, FAST = "added_tokens.json", "tokenizer_config.json", "tokenizer.json"


def held_tokens(folder: Path, pieces: Mapping[str, int]) -> dict[str, int]:
    """Ids of a folder's added tokens, by all of its files that name any.

    Args: `pieces`: ids of the `tokenizer.model`'s own pieces, which the files must not contradict.
    Raises CheckpointError that lists every token to which two of the files give different ids.
    """
    first = {token: (number, "tokenizer.model") for token, number in pieces.items()}
    wrong = []
    for name in (ADDED, SETTINGS, FAST):
        for token, number in _said_in(folder / name):
            known, where = first.setdefault(token, (number, name))
            if known != number:
                wrong.append(f"{token} is {number} in {name}, {known} in {where}")
    if wrong:
        raise CheckpointError(
            f"{folder}: its tokenizer's files contradict each other; keep those that the weights were saved with:\n  "
            + "\n  ".join(dict.fromkeys(wrong[:20]))
        )
    return {token: number for token, (number, _) in first.items() if token not in pieces}


def order_faults(held: Mapping[str, int], pieces: int) -> list[str]:
    """Added tokens whose ids do not follow one after the other behind a tokenizer's own `pieces`."""
    ordered = sorted(held.items(), key=lambda pair: pair[1])
    return [f"{t} is {n}, expected {pieces + at}" for at, (t, n) in enumerate(ordered) if n != pieces + at]


def row_faults(table: Tensor, known: int) -> list[str]:
    """What speaks against `known` tokens in an embedding table (rows, width): rows that none of them has.

    Padding, all zero or all alike, belongs to no token.
    """
    if table.ndim != 2:
        return [f"the embedding table is {tuple(table.shape)}, expected (rows, width)"]
    extra = table[known:]
    if not len(extra) or not extra.any() or (len(extra) > 1 and bool((extra == extra[0]).all())):
        return []
    return [
        f"the embedding table has {len(table)} rows, the tokenizer's files name {known} tokens: "
        f"{len(extra)} of them are missing, which moves the ids of others; add the {ADDED} of the same release"
    ]


def _said_in(file: Path) -> Iterator[tuple[str, int]]:
    """Tokens and ids that one of the files names. Raises CheckpointError when it cannot be read as such."""
    if not file.is_file():
        return
    stored = read_json(file, "tokens and ids")
    try:
        if file.name == ADDED:
            yield from ((str(token), _id(number)) for token, number in stored.items())
        elif file.name == SETTINGS:
            for number, entry in (stored.get("added_tokens_decoder") or {}).items():
                yield str(entry["content"]), _id(int(number))
        else:
            vocabulary: Any = stored["model"]["vocab"]
            if isinstance(vocabulary, Mapping):
                yield from ((str(token), _id(number)) for token, number in vocabulary.items())
            for entry in stored.get("added_tokens") or []:
                yield str(entry["content"]), _id(entry["id"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{file}: cannot be read as tokens and ids: {error!r}") from None


def _id(number: object) -> int:
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise ValueError(f"{number!r} is no id")
    return number
