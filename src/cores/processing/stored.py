"""What a model folder keeps of a processor: sizes, the tokenizer, and a few texts with the ids that they had."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from cores.checkpoint_errors import checkpoint_errors
from cores.errors import CheckpointError
from cores.hub import fetch
from cores.processing.tokens import encode
from cores.prompts.styles import ClipFit
from cores.segmenter_families import SEGMENTERS
from cores.vocabulary import IM_END, IM_START

FILE = "processor_config.json"
SQUARE = "square"  # the published programs' pixel rule: one square of a fixed side


@dataclass(frozen=True)
class ProcessorSizes:
    """Sizes in pixels and tokens.

    `pixel_rule`: how the language model sees pictures: `square`, or a family of `picture_layouts.LAYOUTS`, where
    `mllm_image_size` is 0. `image_tokens`: positions that a picture takes, or a tile of it (0: as its size says);
    `image_token_id` stands at each of them, and with `square` need not be a token. `clip_fit`: how a picture becomes
    square. `max_text_tokens`: most tokens of prefix and one conversation in training, the picture counted as one.
    `segmenter`: its model_type, by which its pixels are made.

    Raises CheckpointError that names every size that cannot be used.
    """

    mllm_image_size: int
    image_tokens: int
    image_token_id: int
    segmenter_image_size: int
    clip_fit: ClipFit = "pad"
    max_text_tokens: int = 1024
    segmenter: str = "sam"  # older folders say neither
    pixel_rule: str = SQUARE

    def __post_init__(self) -> None:
        wrong = []
        for name in ("mllm_image_size", "image_tokens", "image_token_id", "segmenter_image_size", "max_text_tokens"):
            value = getattr(self, name)
            either = self.pixel_rule != SQUARE and name in ("mllm_image_size", "image_tokens")
            least = 0 if either or name == "image_token_id" else 1
            if type(value) is not int or value < least:
                wrong.append(f"{name}: found {value!r}, expected a whole number from {least}")
        if not isinstance(self.pixel_rule, str):
            wrong.append(f"pixel_rule: found {self.pixel_rule!r}, expected a name")
        if self.clip_fit not in ("pad", "crop"):
            wrong.append(f"clip_fit: found {self.clip_fit!r}, expected pad or crop")
        if not isinstance(self.segmenter, str) or self.segmenter not in SEGMENTERS:
            wrong.append(f"segmenter: found {self.segmenter!r:.80}, expected one of {', '.join(SEGMENTERS)}")
        if wrong:
            raise CheckpointError("; ".join(wrong))


def write_processor(folder: Path, tokenizer: PreTrainedTokenizerBase, sizes: ProcessorSizes, answer: str) -> None:
    """Write `processor_config.json` and the tokenizer's own files. `answer`: one of the model's, for the self-test."""
    tokenizer.save_pretrained(folder)
    texts = (  # tokenizers disagree about white space beside added tokens, runs of it, digits, and letters
        f"USER: {IM_START}{IM_END}\n What is the handle? ASSISTANT: {answer} </s>USER: where?###",
        answer.replace(".", " ."),
        "  two  blanks, a\ttab,\nand lines: 3.14 of 1234 ",
        "Ünïcödé, naïve café: 漢字 ελ 😀",
    )
    tests = [{"text": text, "ids": encode(tokenizer, text)} for text in texts]
    stored = {"processor_class": "CoresProcessor", **asdict(sizes), "self_test": tests}
    stored["vocabulary"] = vocabulary_of(tokenizer)
    (folder / FILE).write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_processor(folder: Path) -> tuple[PreTrainedTokenizerBase, ProcessorSizes]:
    """What `write_processor` wrote. Raises CheckpointError when unusable, or when its tokenizer now differs."""
    file = folder / FILE
    try:
        stored = json.loads(file.read_text("utf-8"))
        tests = [(str(test["text"]), list(test["ids"])) for test in stored.pop("self_test")]
        stored.pop("processor_class", None)
        known = stored.pop("vocabulary", None)  # older folders have none
        sizes = ProcessorSizes(**stored)
    except FileNotFoundError:
        raise CheckpointError(f"{file}: is missing; expected the folder of a CoReS model") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{file}: cannot be read as a processor's settings: {error}") from None
    with checkpoint_errors(folder, "be read as a tokenizer", "take the tokenizer that it was saved with"):
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        readings = [(text, ids, encode(tokenizer, text)) for text, ids in tests]
        vocabulary = vocabulary_of(tokenizer)
    if known not in (None, vocabulary):
        raise CheckpointError(
            f"{folder}/tokenizer.json: its words and their ids are not those that the model was saved with (digest "
            f"{vocabulary}, expected {known!s:.40}): take the file that it was saved with"
        )
    for text, ids, found in readings:
        if found != ids:
            raise CheckpointError(
                f"{folder}/tokenizer.json: reads {text!r} as {found}, expected {ids}: the file was changed, or this "
                "version of tokenizers reads it otherwise; take the file or the version that it was saved with"
            )
    return tokenizer, sizes


def vocabulary_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """A digest of every token and its id, and of the merges: the few texts hold only few of the words."""
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model.get("merges") or []]
    said = json.dumps([sorted(tokenizer.get_vocab().items()), merges])
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def fetch_processor(name: str, **where: Any) -> Path:
    """A hub's repository as a folder, without weights; `where`: as `hub.download`'s. Raises CheckpointError."""
    return fetch(name, weights=False, **where)
