"""The tiny models' own tokenizer, built offline: every word of the synthetic world, and letters for all others."""

import json
from collections.abc import Iterable, Iterator
from importlib import resources

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from cores.scenes.source import open_scenes
from cores.vocabulary import TOKENS

SPECIAL = ("<unk>", "<s>", "</s>", "<pad>")
ADDED = ("<im_start>", "<im_end>", "<image>")
GROUNDING = tuple(TOKENS.values())
PREFIX = "##"
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
    """A WordPiece tokenizer of whole words (as written, and beginning a sentence) that spells what it does not know.

    The same texts give the same ids. Grounding and image tokens come last, so that vocabularies line up.
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
    vocab = {word: number for number, word in enumerate([*SPECIAL, *words])}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="<unk>", continuing_subword_prefix=PREFIX))
    tokenizer.pre_tokenizer = split
    tidy = [decoders.Replace(before, after) for before, after in ((" ' s", "'s"), (" :", ":"))]
    tokenizer.decoder = decoders.Sequence([decoders.WordPiece(prefix=PREFIX, cleanup=True), decoders.Fuse(), *tidy])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in GROUNDING])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in ADDED])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        clean_up_tokenization_spaces=False,
    )
