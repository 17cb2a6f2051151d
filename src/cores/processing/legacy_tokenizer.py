"""The tokenizer of LLaVA v1, LISA and CoReS: a `tokenizer.model` as their pinned library read it (slow, legacy).

Its rule: text is split at the added tokens; white space beside those of CoReS goes, beside `</s>` it stays; each
stretch of text between is tokenised alone by sentencepiece, which puts a blank before it. So the full stop after
`[SEG]` is the piece "▁.". Today's LLaMA tokenizers do otherwise.

Here the rule is data in a `tokenizer.json`: a normaliser that is applied to every stretch puts the blank before it,
and the added tokens take the white space beside them. That is exact (the same merges in the same order), it is the
one path that all other tokenizers take too, and any program that knows transformers gets the same ids from the
folder. Each conversion is compared with sentencepiece itself on the texts below before it is given out. One known
difference: Python counts the control characters U+001C to U+001F as white space beside an added token.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import sentencepiece
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from cores.errors import CheckpointError
from cores.processing.tokens import add_token, add_tokens, encode

BLANK = "▁"  # sentencepiece's
UNCHANGED = "ﬁ  Å é①"  # text that the other normalisers of sentencepiece change
PROOF = (
    "What is the blade in this image? It is the flat, cutting or propelling surface.  USER:",
    "  odd   spacing\tand\nnew lines \u00a0 ",
    "Ünïcödé, naïve façade: 漢字 ελ 😀 e\u0301",
    "1234567890 3.14 7,500 ###Human: [INST] <<SYS>>\n\n[/INST] ",
    "aaaaaaaa ssssssss ........ -------- ######## ====" + " " * 19,
    "▁literal▁ <0x0A> \u200b\u3000\ufeff",
)


def read_legacy_tokenizer(
    file: Path, grounding: Sequence[str], held: Mapping[str, int] | None = None
) -> PreTrainedTokenizerFast:
    """A tokenizer with a `tokenizer.model`'s ids, and the added tokens behind them.

    Args: `grounding`: the levels' tokens, coarse to fine, added before `<im_start>` and `<im_end>` where they are
    lacking; `held`: tokens and ids that the checkpoint already has.
    Raises CheckpointError when the file is no BPE model of LLaMA's kind, or the ids of `held` do not follow it.
    """
    pieces = _open(file)
    tokenizer = _convert(pieces, file)
    for text in PROOF:
        _prove(tokenizer, text, pieces.encode(text), file)
    wrong = []
    for token, number in sorted((held or {}).items(), key=lambda pair: pair[1]):
        add_token(tokenizer, token, special=token.startswith("<"))
        found = tokenizer.convert_tokens_to_ids(token)
        if found != number:
            wrong.append(f"{token} is {number}, expected {found}")
    if wrong:
        raise CheckpointError(f"{file.parent}: added tokens do not follow {file.name}: {'; '.join(wrong)}")
    add_tokens(tokenizer, grounding)
    before, after, alone = (pieces.encode(text) for text in ("It is", ". It", "."))
    for token, number in tokenizer.get_vocab().items():
        if number >= pieces.piece_size():
            expected = [*before, number, *after, number, *alone]
            _prove(tokenizer, f"It is {token}. It {token}.", expected, file)
    return tokenizer


def _prove(tokenizer: PreTrainedTokenizerFast, text: str, expected: list[int], file: Path) -> None:
    ids = encode(tokenizer, text)
    if ids != expected:
        raise CheckpointError(
            f"{file}: the converted tokenizer reads {text!r} as {ids}, sentencepiece as {expected}; please report"
        )


def pieces_of(file: Path) -> dict[str, int]:
    """The pieces of a `tokenizer.model` and their ids. Raises CheckpointError when it cannot be read."""
    pieces = _open(file)
    return {pieces.id_to_piece(number): number for number in range(pieces.piece_size())}


def _open(file: Path) -> sentencepiece.SentencePieceProcessor:
    try:
        return sentencepiece.SentencePieceProcessor(model_file=str(file))
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{file}: cannot be read as a sentencepiece model: {error}") from None


def _convert(pieces: sentencepiece.SentencePieceProcessor, file: Path) -> PreTrainedTokenizerFast:
    count = pieces.piece_size()
    names = [pieces.id_to_piece(i) for i in range(count)]
    own = [i for i in range(count) if not (pieces.is_control(i) or pieces.is_unknown(i) or pieces.is_byte(i))]
    scores = [pieces.get_score(i) for i in own]
    expected = f"{BLANK}{UNCHANGED}".replace(" ", BLANK)
    if pieces.normalize(UNCHANGED) != expected or any(a < b for a, b in zip(scores, scores[1:], strict=False)):
        raise CheckpointError(f"{file}: expected a BPE model with LLaMA's flags, found another kind")
    parts = {names[i] for i in own}
    merges = [
        (name[:k], name[k:])
        for name in (names[i] for i in own)  # sentencepiece's own order: by score, which falls
        for k in range(1, len(name))
        if name[:k] in parts and name[k:] in parts
    ]
    vocabulary = {name: i for i, name in enumerate(names)}
    unknown, beginning, end = (names[i] for i in (pieces.unk_id(), pieces.bos_id(), pieces.eos_id()))
    model = Tokenizer(models.BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    model.normalizer = normalizers.Sequence([normalizers.Prepend(BLANK), normalizers.Replace(" ", BLANK)])
    model.decoder = decoders.Sequence(
        [decoders.Replace(BLANK, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    model.add_special_tokens([AddedToken(token, normalized=False) for token in (unknown, beginning, end)])
    return PreTrainedTokenizerFast(
        tokenizer_object=model,
        unk_token=unknown,
        bos_token=beginning,
        eos_token=end,
        pad_token=unknown,
        clean_up_tokenization_spaces=False,
    )
