"""A model and its processor before one image: features and prefix once, then any number of questions.

Legend: questions = about one image, levels = of the chain, masks = any number of chains, dim = of a prompt token,
(h, w) = low-res masks, (H, W) = the picture's own size in pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from cores.asking.answerer import Answerer, Query
from cores.asking.answers import Answered, decode, passes, segment_answers
from cores.asking.prefixes import Prefixes
from cores.data.sample import Form, Turn
from cores.errors import UserError
from cores.modeling.generation import generate, read_prefix, teacher_force
from cores.modeling.model import CoresModel
from cores.modeling.segmenters.base import Features
from cores.processing.pixels import Picture
from cores.processing.processor import CoresProcessor
from cores.processing.reading import Reading

QUESTIONS_PER_PASS = 16  # each has a copy of the prefix's cache: 0.2 GB for 7B in 16 bits and a prefix of 400 tokens


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class EncodedImage:
    """An image that a model has looked at; any number of questions may follow. Belongs to the model that made it.

    `pixels`: for the language model, on its device; `features`: the segmenter's own.
    """

    picture: Picture
    pixels: Mapping[str, Tensor]
    features: Features

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) after EXIF rotation."""
        return self.picture.size

    @property
    def resized(self) -> tuple[int, int]:
        """(h, w) inside the segmenter's square."""
        return self.picture.resized


class Asker(Answerer[EncodedImage]):
    """Asks a model questions about images.

    Args:
        seed: for in-context exemplars drawn at random; an answer depends on it, the picture and the query alone.
        max_new_tokens: most tokens of a generated answer; None: the checkpoint's own.
        questions_per_pass: most questions that the language model, and masks that the mask decoder, work on at once;
            it bounds the memory and changes no answer.
        prefixes: those that the same model has read, for askers that come one after the other.

    Raises UserError when `max_new_tokens` or `questions_per_pass` is no whole number from 1.
    """

    has_tokens = True

    def __init__(
        self,
        model: CoresModel,
        processor: CoresProcessor,
        seed: int = 0,
        max_new_tokens: int | None = None,
        questions_per_pass: int = QUESTIONS_PER_PASS,
        prefixes: Prefixes | None = None,
    ) -> None:
        self.model, self.processor, self.seed = model, processor, seed
        self.prefixes = Prefixes() if prefixes is None else prefixes
        self.max_new_tokens = model.max_new_tokens if max_new_tokens is None else max_new_tokens
        self.questions_per_pass = questions_per_pass
        for name in ("max_new_tokens", "questions_per_pass"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise UserError(f"{name}: found {value!r:.40}, expected a whole number from 1")
        self.levels = [str(level["name"]) for level in model.config.levels]
        self.canvas, self.fit = model.segmenter.image_size, model.segmenter.fit

    @torch.no_grad()
    def encode_image(self, image: Path | str | Image.Image) -> EncodedImage:
        """Look at an image once. Raises DataError when it cannot be read."""
        picture = self.processor.picture(image)
        device, dtype = self.model.device, self.model.dtype
        features = self.model.encode(picture.segmenter_pixels[None].to(device, dtype))
        return EncodedImage(picture, self.processor.language_pixels([picture], device, dtype), features)

    def check(self, query: str, form: Form) -> None:
        """Raises UserError for an empty query or an unknown form, DataError for one that holds the picture's marks."""
        self.processor.question(query, form)

    def read(self, answer: Answered) -> Reading:
        """What an answer says."""
        return self.processor.parse_answer(answer.ids)

    def generate(self, image: EncodedImage, queries: Sequence[Query]) -> list[Answered]:
        """The model's own answers to the queries, in their order.

        Raises UserError for an empty query or an unknown form, DataError for one that holds the picture's marks.
        """
        return self._answers(image, queries, None)

    def teacher_force(
        self, image: EncodedImage, queries: Sequence[Query], answers: Sequence[Turn | str | None]
    ) -> list[Answered]:
        """The same with given answers, as `CoresProcessor.answer_ids` takes them: only their states are read."""
        return self._answers(image, queries, answers)

    def _answers(
        self, image: EncodedImage, queries: Sequence[Query], given: Sequence[Turn | str | None] | None
    ) -> list[Answered]:
        device, processor, closing = self.model.device, self.processor, self.processor.closing
        questions = [processor.question(query, form).to(device) for query, form in queries]
        if not questions:
            return []
        prefix_ids = processor.prefix(self.seed, image.picture.key, image.picture).to(device)
        prefix = self.prefixes.of(image, prefix_ids, partial(read_prefix, self.model, image.pixels))
        answers = None if given is None else [processor.answer_ids(answer).to(device) for answer in given]
        said = []
        for some in passes(len(questions), self.questions_per_pass):
            if answers is None:
                said += generate(self.model, prefix, questions[some], closing, self.max_new_tokens)
            else:
                said += teacher_force(self.model, prefix, questions[some], answers[some], closing)
        return segment_answers(self.model, image.features, said, self.questions_per_pass)

    def decode(self, image: EncodedImage, tokens: Tensor, use_location: bool = True) -> list[Tensor]:
        """Low-res logits (masks, h, w) of each level, of prompt tokens (levels, masks, dim).

        `use_location` False: the last level without mask prompt and refiner.
        """
        return decode(self.model, image.features, tokens, self.questions_per_pass, use_location)
