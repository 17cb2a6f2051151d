"""One image, encoded once, and the questions about it that are scored.

Legend: masks = a flat axis; h, w = a low-res mask; H, W = the picture.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from cores import masks
from cores.data.sample import Sample, Turn
from cores.errors import DataError
from cores.geometry import restore
from cores.masks import Mask
from cores.modeling.generation import Answered
from cores.modeling.model import CoresModel
from cores.processing.processor import CoresProcessor

Mode = Literal["generated", "teacher-forced"]
MODES: tuple[Mode, ...] = ("generated", "teacher-forced")


@dataclass(frozen=True, slots=True)
class Question:
    """A question that is scored. `number` within its sample; `truth`: the targets' masks (H, W), none when absent."""

    number: int
    turn: Turn
    kind: str | None
    truth: tuple[Mask, ...]


def questions_of(sample: Sample) -> Iterator[Question]:
    """The questions of a sample that have a mask or a refusal as their answer; those that want text have neither."""
    kinds = sample.meta.get("kinds") or [None] * len(sample.conversations)
    number = 0
    for conversation, kind in zip(sample.conversations, kinds, strict=True):
        for turn in conversation.turns:
            if turn.targets or (turn.form != "raw" and turn.answer is None):
                yield Question(number, turn, kind, tuple(masks.decode(target.mask) for target in turn.targets))
            number += 1


class Asker:
    """A model before one image. Encodes it when made; everything after that is questions.

    Raises DataError when the picture cannot be read or is of another size than the sample says.
    """

    def __init__(
        self, model: CoresModel, processor: CoresProcessor, sample: Sample, seed: int, max_new_tokens: int
    ) -> None:
        self.model, self.processor, self.sample = model, processor, sample
        self.max_new_tokens = max_new_tokens
        self.ignore = None if sample.ignore is None else masks.decode(sample.ignore)
        self.picture = processor.picture(sample.image)
        if self.picture.size != sample.size:
            name = sample.image if isinstance(sample.image, Path) else sample.meta.get("name", "a picture")
            raise DataError(f"{name}: the picture is {self.picture.size} (h, w), its masks are {sample.size}")
        self.pixels = self.picture.pixel_values[None].to(model.device, model.dtype)
        self.features = model.encode(self.picture.segmenter_pixels[None].to(model.device, model.dtype))
        self.prefix = processor.prefix(seed, self.picture.key).to(model.device)

    def ask(self, questions: Sequence[Question], mode: Mode) -> list[Answered]:
        """The answers to the questions, in their order."""
        if not questions:
            return []
        device, processor = self.model.device, self.processor
        ids = [processor.question(q.turn.query, q.turn.form).to(device) for q in questions]
        given = None
        if mode == "teacher-forced":  # the chains alone: an explanation comes after them and changes nothing
            given = [processor.answer_ids(replace(q.turn, answer=None)).to(device) for q in questions]
        return self.model.answer(
            self.pixels, self.features, self.prefix, ids, given, processor.closing, self.max_new_tokens
        )

    def segment(self, tokens: Tensor, use_location: bool = True) -> list[Mask]:
        """The last level's masks (H, W) of prompt tokens (levels, masks, dim)."""
        image_index = torch.zeros(tokens.shape[1], dtype=torch.long, device=tokens.device)
        low_res = self.model.segment(self.features, tokens, image_index, use_location)[-1]
        return self.full_size(low_res)

    def full_size(self, low_res: Tensor) -> list[Mask]:
        """Masks (H, W) at the picture's size of low-res logits (masks, h, w)."""
        if not len(low_res):
            return []
        logits = restore(low_res, self.model.segmenter.image_size, self.picture.resized, self.picture.size)
        return list((logits > 0).cpu().numpy())
