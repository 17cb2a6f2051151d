"""The tiny models' own tokenizer, built offline: every word of the synthetic world; letters or bytes of others."""

import json
from collections.abc import Iterable, Iterator
from importlib import resources

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from cores.scenes.source import open_scenes
from cores.vocabulary import TOKENS

SPECIAL = ("<unk>", "<s>", "</s>", "<pad>")
ADDED = ("<im_start>", "<im_end>", "<image>")
GROUNDING = tuple(TOKENS.values())
PREFIX = "##"
BLANK = "Ġ"  # what byte-level steps write for a blank
LONGEST_WORD = 1000  # bytes; languages that write no blanks have words as long as sentences
EVERYDAY = """USER: ASSISTANT: What Which Where Who How is are the a an this that these it its here there in on at of
to for with from by and or not no yes what which where who how many much can could would should do does did please show
find point segment me thing things object objects part parts picture image left right top bottom front side middle use
used using hold holding grip pour cut slice sit open close read light dark dry wet water food drink eat cook people
person"""


def corpus() -> Iterator[str]:
    """Every text the tiny models meet: templates, clauses, and questions of enough scenes to hold every word."""
    from cores.scenes import words
    from cores.scenes.kinds import COLOURS, KINDS, PARTS

    prompts = resources.files("cores.prompts")
    for entry in sorted(prompts.iterdir(), key=lambda e: e.name):
        if entry.name.endswith(".txt"):
            yield entry.read_text("utf-8")
        elif entry.name == "templates.json":
            yield from _strings(json.loads(entry.read_text("utf-8")))
    yield from _strings(words.clauses())
    yield EVERYDAY
    yield from (*COLOURS, *PARTS, *words.PLACES, *words.NUMBERS)
    for kind in KINDS.values():
        yield f"{kind.name} {kind.plural}"
    for kinds in ("learned", "own"):
        for split in ("train", "phrasing"):
            scenes = open_scenes(split, n=150, kinds=kinds)
            for i in range(len(scenes)):
                for conversation in scenes[i].conversations:
                    for turn in conversation.turns:
                        yield f"{turn.query} {turn.answer or ''}"


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


def build_tokenizer(texts: Iterable[str] | None = None) -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer of whole words that spells what it does not know: in letters, and beyond ASCII in bytes.

    Upper and lower case are alike, but for the words that the texts themselves write with capitals ("USER", "What"):
    those are tokens as they are written. The same texts give the same ids. Grounding and image tokens come after all
    words, so that vocabularies line up; the bytes come last, so that a model without them is extended by rows alone.
    """
    split = pre_tokenizers.BertPreTokenizer()
    found: set[str] = set()
    for text in texts if texts is not None else corpus():
        for token in (*GROUNDING, *ADDED, *SPECIAL, "{loc}", "{part}", "{seg}"):
            text = text.replace(token, " ")
        for word, _ in split.pre_tokenize_str(text):
            if word.isascii():
                found.add(word)
    letters = [chr(n) for n in range(33, 127)]
    words = [*letters, *(PREFIX + c for c in letters), *sorted(found - set(letters))]
    tokens = [*SPECIAL, *words, *GROUNDING, *ADDED, *_byte_tokens()]
    vocab = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(
        models.WordPiece(
            vocab, unk_token="<unk>", continuing_subword_prefix=PREFIX, max_input_chars_per_word=LONGEST_WORD
        )
    )
    control = normalizers.Replace(Regex("[\\x00-\\x1f\\x7f]"), " ")  # no token holds one
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), control, normalizers.Lowercase()])
    in_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, in_bytes])
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.WordPiece(prefix=PREFIX, cleanup=True),
            decoders.Fuse(),
            decoders.Replace(" ", BLANK),
            decoders.ByteLevel(),
            *(decoders.Replace(before, after) for before, after in ((" ' s", "'s"), (" :", ":"))),
        ]
    )
    as_written = sorted(word for word in found if word != word.lower())
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in GROUNDING])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in ADDED])
    tokenizer.add_tokens([AddedToken(word, single_word=True, normalized=False) for word in as_written])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        clean_up_tokenization_spaces=False,
    )


def _byte_tokens() -> list[str]:
    """Every byte beyond ASCII that UTF-8 uses, where it can begin a word and where it can go on with one."""
    leads, others = range(0xC2, 0xF5), range(0x80, 0xC0)
    return [*(_letter_of(n) for n in leads), *(PREFIX + _letter_of(n) for n in (*others, *leads))]


def _letter_of(byte: int) -> str:
    """The visible letter that the byte-level step puts in place of a byte beyond ASCII."""
    hidden = [*range(0x80, 0xA1), 0xAD]  # no letters in Latin-1: moved up, after the 33 control characters of ASCII
    return chr(256 + 34 + hidden.index(byte)) if byte in hidden else chr(byte)
