"""Asking a multimodal LLM for text: what the chain in words needs of one, and a model of ours that gives it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from cores.geometry import Size
from cores.modeling.generation import Choose, generate
from cores.modeling.model import CoresModel
from cores.modeling.prefix_cache import read_prefix
from cores.processing.processor import CoresProcessor
from cores.words.grounding import Grounding

TEMPERATURE = 0.7  # of answers that are drawn, for votes


@dataclass(frozen=True, slots=True)
class Spoken:
    """An answer. `score`: mean log-probability of its tokens; `cut`: it reached the most allowed before it ended."""

    text: str
    score: float
    tokens: int
    cut: bool


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """A picture as a speaker has taken it in. `size` (h, w), its own; `resized` (h, w), as the model sees it; `key`
    says which picture it is; `held` is the speaker's own."""

    size: Size
    resized: Size
    key: str
    held: Any


class Speaker(Protocol):
    """A multimodal LLM that is asked for text."""

    grounding: Grounding
    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel

    def look(self, image: Image.Image) -> Look:
        """Take a picture in, once for all questions about it."""
        ...

    def ask(self, look: Look, prompts: Sequence[str], max_new_tokens: int, draw: int | None = None) -> list[Spoken]:
        """One answer a prompt, each for itself. `draw`: None for the likeliest, a number for one drawn by it."""
        ...


class CoresSpeaker:
    """A CoReS model that was taught to say boxes (`cores scenes words`)."""

    def __init__(
        self, model: CoresModel, processor: CoresProcessor, grounding: Grounding, questions_per_pass: int = 16
    ) -> None:
        self.model, self.processor, self.grounding = model.eval(), processor, grounding
        self.tokenizer = processor.tokenizer
        self.questions_per_pass = questions_per_pass

    def look(self, image: Image.Image) -> Look:
        """Read the prefix with the picture in it."""
        picture = self.processor.picture(image)
        pixels = self.processor.language_pixels([picture], self.model.device, self.model.dtype)
        ids = self.processor.prefix(0, picture.key, picture).to(self.model.device)
        return Look(picture.size, picture.size, picture.key, read_prefix(self.model, pixels, ids))

    def ask(self, look: Look, prompts: Sequence[str], max_new_tokens: int, draw: int | None = None) -> list[Spoken]:
        found: list[Spoken] = []
        for first in range(0, len(prompts), self.questions_per_pass):
            some = prompts[first : first + self.questions_per_pass]
            questions = [self.processor.question(prompt, "raw").to(self.model.device) for prompt in some]
            choose = None if draw is None else _drawing([seed_of(draw, look.key, prompt) for prompt in some])
            prefixes, closing = [look.held] * len(questions), self.processor.closing
            for said in generate(self.model, prefixes, questions, closing, max_new_tokens, choose):
                text = self.processor.parse_answer(said.ids).text
                found.append(Spoken(text, said.score, len(said.ids), said.cut))
        return found


def seed_of(draw: int, key: str, prompt: str) -> int:
    """A seed for one drawn answer: it depends on the draw, the picture and the question, on nothing beside them."""
    return int.from_bytes(hashlib.sha256(f"{draw} {key} {prompt}".encode()).digest()[:7], "big")


def _drawing(seeds: Sequence[int]) -> Choose:
    """A choice of next tokens by chance, each question with a generator of its own."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def choose(chances: Tensor, numbers: Sequence[int]) -> Tensor:
        weights = (chances / TEMPERATURE).softmax(-1).cpu()
        pairs = zip(weights, numbers, strict=True)
        drawn = [torch.multinomial(row, 1, generator=generators[number]) for row, number in pairs]
        return torch.cat(drawn).to(chances.device)

    return choose
