"""`cores.load(...).segment(picture, queries)`: a picture is encoded once and asked as often as one likes.

Legend: h, w = low-res logits; H, W = the picture's own size in pixels; levels = steps of the chain.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cores.checkpoints.load import load as load_checkpoint
from cores.data.sample import Form
from cores.errors import UserError
from cores.geometry import restore
from cores.inference.segmentation import Level, Segmentation, TargetMask
from cores.masks import union
from cores.modeling.generation import Answered
from cores.modeling.model import CoresModel
from cores.processing.pixels import Picture
from cores.processing.processor import CoresProcessor

Picturelike = str | Path | Image.Image | NDArray[np.uint8]

# Words that make a whole request of a query: with one of them it is asked as it stands.
CLAUSE = frozenset(
    "what which where who whose when why how that you your i me we is are was were do does can could would should "
    "show find point segment locate mark look tell give please".split()
)


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """A picture that a model has looked at; any number of questions may follow. Belongs to the model that made it."""

    picture: Picture
    pixel_values: Tensor  # (1, 3, s, s), for the language model
    features: Any  # the segmenter's own

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) after EXIF rotation."""
        return self.picture.size


class Cores:
    """A model with its processor, ready to be asked.

    `seed`: for in-context exemplars drawn at random, where the checkpoint was trained with such; an answer depends on
    the seed, the picture and the query, never on the other queries.
    """

    def __init__(self, model: CoresModel, processor: CoresProcessor, seed: int = 0) -> None:
        self.model, self.processor, self.seed = model.eval(), processor, seed

    def segment(
        self, image: Picturelike, queries: Sequence[str], form: Form | None = None, max_new_tokens: int = 128
    ) -> list[Segmentation]:
        """`encode` and `ask` in one: the answers to all queries about a picture, in their order."""
        _check(queries)
        return self.ask(self.encode(image), queries, form, max_new_tokens)

    @torch.inference_mode()
    def encode(self, image: Picturelike) -> EncodedImage:
        """Look at a picture once. Takes a path, a Pillow image, or an array (H, W, 3) or (H, W) of uint8.

        Raises DataError when the file is missing or no picture; UserError for an array of another shape or type.
        """
        picture = self.processor.picture(_opened(image))
        device, dtype = self.model.device, self.model.dtype
        features = self.model.encode(picture.segmenter_pixels[None].to(device, dtype))
        return EncodedImage(picture, picture.pixel_values[None].to(device, dtype), features)

    @torch.inference_mode()
    def ask(
        self, encoded: EncodedImage, queries: Sequence[str], form: Form | None = None, max_new_tokens: int = 128
    ) -> list[Segmentation]:
        """The answers to all queries about an encoded picture, in their order.

        Args:
            form: how the queries are put into words (see `Turn.form`): `phrase` for a name ("red kettle"), `sentence`
                for a whole question or request, `explain` for one that also wants the reason, `raw` for text as it
                is. None tells phrases from sentences by themselves (`form_of`).
            max_new_tokens: most tokens of an answer.

        Raises UserError for an empty query.
        """
        _check(queries)
        device = self.model.device
        prefix = self.processor.prefix(self.seed, encoded.picture.key).to(device)
        worded = [(query, form) if form else form_of(query) for query in queries]
        questions = [self.processor.question(query, known).to(device) for query, known in worded]
        answered = self.model.answer(
            encoded.pixel_values,
            encoded.features,
            prefix,
            questions,
            closing=self.processor.closing,
            max_new_tokens=max_new_tokens,
        )
        pairs = zip(queries, answered, strict=True)
        return [self._segmentation(query, answer, encoded.picture) for query, answer in pairs]

    def _segmentation(self, query: str, answer: Answered, picture: Picture) -> Segmentation:
        reading = self.processor.parse_answer(answer.ids)
        names = [level["name"] for level in self.model.config.levels]
        targets = []
        for i, (phrase, chain) in enumerate(zip(reading.phrases, answer.chains, strict=True)):
            steps = zip(names, answer.low_res_logits, chain, strict=True)
            found = [(name, low_res[i]) for name, low_res, position in steps if position is not None]
            levels = tuple(self._level(name, low_res, picture) for name, low_res in found)
            targets.append(TargetMask(phrase, levels))
        mask = union([target.mask for target in targets], picture.size)
        return Segmentation(query, reading.text, reading.status, mask, tuple(targets), answer.score)

    def _level(self, name: str, low_res: Tensor, picture: Picture) -> Level:
        canvas = self.model.segmenter.image_size
        logits = restore(low_res[None], canvas, picture.resized, picture.size)[0]  # (H, W)
        mask = logits > 0
        score = float(logits[mask].sigmoid().mean()) if mask.any() else 0.0
        return Level(name, mask.cpu().numpy(), score, low_res.float().cpu().numpy(), canvas, picture.resized)


def load(
    path: str | Path | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    seed: int = 0,
) -> Cores:
    """A model to ask, from a model folder, a run folder or a hub id; without a path, the one that comes with cores.

    The model that comes with cores is tiny and knows drawn scenes, not photographs.

    Args:
        device: where it runs; None takes CUDA where there is one, else the CPU.
        dtype: of the weights, such as "bfloat16"; None: the checkpoint's own on CUDA, float32 on the CPU.

    Raises CheckpointError when the folder is missing or its weights, tokens and config do not fit each other.
    """
    model, processor = load_checkpoint(path, device, dtype)
    return Cores(model, processor, seed)


def form_of(query: str) -> tuple[str, Form]:
    """The query and how it is put into words: a sentence as it is, a name without its article as a phrase.

    A sentence ends in a full stop, question or exclamation mark, or holds a word that names do not ("the thing *that*
    one holds"). "The red kettle" is the phrase "red kettle".
    """
    words = re.findall(r"[a-z']+", query.lower())
    if query.rstrip()[-1] in ".?!" or CLAUSE.intersection(words):
        return query, "sentence"
    return re.sub(r"^(the|an?)\s+(?=\S)", "", query.strip(), flags=re.IGNORECASE), "phrase"


def _check(queries: Sequence[str]) -> None:
    if isinstance(queries, str):
        raise UserError(f"queries: found one string, expected a list of them: [{queries!r}]")
    for number, query in enumerate(queries):
        if not isinstance(query, str) or not query.strip():
            raise UserError(f"queries[{number}] is {query!r}: ask for something in words")


def _opened(image: Picturelike) -> Path | Image.Image:
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
            raise UserError(f"image: expected (H, W, 3) or (H, W) of uint8, found {image.shape} of {image.dtype}")
        return Image.fromarray(image)
    return Path(image)
