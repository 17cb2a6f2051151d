"""Text to ids and labels: a prompt is split at the picture's place, and each piece is tokenised alone.

Only the first piece begins with the tokenizer's own beginning token, if it has one and its text does not stand there.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tokenizers import AddedToken
from transformers import PreTrainedTokenizerBase

from cores.errors import CheckpointError
from cores.prompts.prompt import Piece
from cores.vocabulary import IM_END, IM_START, IMAGE, IMAGE_PLACE, UNSUPERVISED


@dataclass(frozen=True, slots=True)
class Tokens:
    """Ids and labels of a text, as many of one as of the other. `ends`: where its supervised pieces end, in ids."""

    ids: list[int]
    labels: list[int]
    ends: list[int]


def find_ids(tokenizer: PreTrainedTokenizerBase, tokens: Iterable[str]) -> list[int]:
    """The ids that these tokens have. Raises CheckpointError that names those that are no single token."""
    vocabulary = tokenizer.get_vocab()
    tokens = list(tokens)
    missing = [token for token in tokens if token not in vocabulary]
    if missing:
        raise CheckpointError(
            f"the tokenizer does not hold {', '.join(missing)}: add them with cores.processing.add_tokens and give "
            "the model rows for them"
        )
    return [vocabulary[token] for token in tokens]


def add_tokens(tokenizer: PreTrainedTokenizerBase, grounding: Iterable[str], marks: bool = True) -> list[str]:
    """Add grounding tokens, then LLaVA v1's picture marks, where the tokenizer lacks them. Gives those that are new.

    White space on both sides of them is not part of the text around, as in the published programs. `marks` False: a
    family whose prompts mark pictures in their own way.
    """
    pictures = [(IM_START, True), (IM_END, True)] if marks else []
    wanted = [*((token, False) for token in grounding), *pictures]
    return [token for token, special in wanted if add_token(tokenizer, token, special)]


def add_token(tokenizer: PreTrainedTokenizerBase, token: str, special: bool) -> bool:
    """Add one token where it is lacking, as the published programs read theirs. Was it?"""
    if token in tokenizer.get_vocab():
        return False
    entry = AddedToken(token, lstrip=True, rstrip=True, normalized=False, special=special)
    tokenizer.add_tokens([entry], special_tokens=special)
    return True


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of a text that holds no picture, without beginning or end of their own."""
    found: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return found


def encode_prompt(tokenizer: PreTrainedTokenizerBase, pieces: Sequence[Piece], begins: bool = True) -> Tokens:
    """A whole prompt; the picture is one `IMAGE_PLACE`. `begins`: with the tokenizer's beginning token, if any."""

    def ids_of(text: str) -> list[int]:
        first, *others = (encode(tokenizer, part) for part in text.split(IMAGE))
        bos = tokenizer.bos_token
        beginning = [tokenizer.bos_token_id] if bos and begins and not text.startswith(bos) else []
        return [*beginning, *first, *(number for ids in others for number in (IMAGE_PLACE, *ids))]

    return _label(pieces, ids_of)


def encode_conversation(tokenizer: PreTrainedTokenizerBase, pieces: Sequence[Piece], behind: str = IM_END) -> Tokens:
    """What follows a prompt's prefix: as if it stood there, for a tokenizer may join it to what is before.

    `behind`: the tokens with which the prefix ends.
    """
    before = len(encode(tokenizer, behind))

    def ids_of(text: str) -> list[int]:
        return encode(tokenizer, f"{behind}{text}")[before:]

    return _label(pieces, ids_of)


def _label(pieces: Sequence[Piece], ids_of: Callable[[str], list[int]]) -> Tokens:
    """Ids of the whole text, for a tokenizer may join pieces; each piece ends where the text up to it does."""
    text = "".join(piece.text for piece in pieces)
    ids = ids_of(text)
    labels, upto, first = [UNSUPERVISED] * len(ids), "", 0
    ends: list[int] = []
    for piece in pieces:
        upto += piece.text
        end = len(ids) if len(upto) == len(text) else _shared(ids, ids_of(upto))
        if piece.supervised:
            labels[first:end] = ids[first:end]
            ends.append(end)
        first = end
    return Tokens(ids, labels, ends)


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(one), len(other)))
