"""A tokenizer of bytes with a few merges, so that it joins what real ones join, and whatever tokens a family has."""

from collections.abc import Sequence
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

NEWLINE, BLANK = "Ċ", "Ġ"
JOINED = (
    (NEWLINE, NEWLINE),
    (NEWLINE * 2, NEWLINE),
    ("i", "t"),
    (BLANK, "it"),
    ("I", "t"),
    (BLANK, "It"),
)


def byte_tokenizer(
    special: Sequence[str], bos: str | None = None, eos: str | None = None, adds_bos: bool = False, **kwargs: Any
) -> PreTrainedTokenizerFast:
    """Bytes, line breaks two and three at a time, and "it" and "It" with the blank before them.

    Args: `special`: further tokens, in their order; `adds_bos`: does it put `bos` before a text by itself?
    """
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *("".join(pair) for pair in JOINED)]
    tokenizer = Tokenizer(models.BPE({word: n for n, word in enumerate(words)}, list(JOINED)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    own = dict.fromkeys([*filter(None, (bos, eos)), *special])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in own])
    if bos and adds_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos, eos_token=eos, pad_token=eos, **kwargs)
