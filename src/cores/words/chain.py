"""The chain in words: an instruct model says boxes, level by level, and a segmenter makes masks of them.

The paper's two levels with text in place of tokens. The model is asked for the box of the location, then for the
target's inside it, by default with a crop of the location before it (a second look). The segmenter is prompted by the
location's box first; its low-res logits are the mask prompt of the target's box.

Legend: h, w = a picture's size in pixels; places = what a first answer points to; chains = targets of one answer;
masks = boxes on one flat axis; (H, W) = low-res masks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import torch
from PIL import Image
from torch import Tensor

from cores.asking.answerer import Answerer, Query
from cores.asking.answers import Answered, Chain, passes
from cores.asking.asker import QUESTIONS_PER_PASS
from cores.data.sample import Form
from cores.errors import UserError
from cores.geometry import Size
from cores.modeling.segmenters.base import Features, Segmenter
from cores.processing.pixels import open_picture
from cores.processing.reading import Reading
from cores.processing.segmenter_pixels import for_segmenter
from cores.words.boxes import Box, shift, to_canvas, widen
from cores.words.hearing import Heard, Listener
from cores.words.places import Place, group, phrases_of, places_of, status_of
from cores.words.speaker import Look, Speaker

MAX_NEW_TOKENS = 256
LEVELS = ("location", "target")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """`levels`: 2, the location first, or 1, the target at once. `crop`: the second look is at a crop of the location,
    else at the whole picture, with the location's box in the question. `votes`: see `Listener`.

    Raises UserError that names every setting that cannot be.
    """

    levels: Literal[1, 2] = 2
    crop: bool = True
    votes: int = 1

    def __post_init__(self) -> None:
        wrong = []
        if type(self.levels) is not int or self.levels not in (1, 2):
            wrong.append(f"levels: found {self.levels!r:.40}, expected 1 or 2")
        if type(self.crop) is not bool:
            wrong.append(f"crop: found {self.crop!r:.40}, expected true or false")
        if type(self.votes) is not int or self.votes < 1:
            wrong.append(f"votes: found {self.votes!r:.40}, expected a whole number from 1")
        if wrong:
            raise UserError("; ".join(wrong))


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A picture that was looked at: by the speaker (`look`) and by the segmenter (`features`).

    `size` (h, w); `resized` (h, w) inside the segmenter's square.
    """

    image: Image.Image
    look: Look
    features: Features
    size: Size
    resized: Size


@dataclass(frozen=True, slots=True, eq=False)
class AnsweredInWords(Answered):
    """`ids` and `tokens` are empty: it was said in text. `reading`: what it says; `said`: tokens of all answers."""

    reading: Reading
    said: int

    @property
    def length(self) -> int:
        return self.said


class WordsChain(Answerer[Seen]):
    """A speaker and a segmenter, asked as a model of ours is.

    Args:
        seed: for drawn answers (`votes`); an answer depends on it, on the picture and on the query alone.
        masks_per_pass: most masks that the decoder works on at once.
    """

    def __init__(
        self,
        speaker: Speaker,
        segmenter: Segmenter,
        settings: Settings | None = None,
        seed: int = 0,
        max_new_tokens: int = MAX_NEW_TOKENS,
        masks_per_pass: int = QUESTIONS_PER_PASS,
    ) -> None:
        if type(max_new_tokens) is not int or max_new_tokens < 1:
            raise UserError(f"max_new_tokens: found {max_new_tokens!r:.40}, expected a whole number from 1")
        self.speaker, self.segmenter = speaker, segmenter
        self.settings, self.seed, self.masks_per_pass = settings or Settings(), seed, masks_per_pass
        self.levels = LEVELS[-self.settings.levels :]
        self.canvas, self.fit = segmenter.image_size, segmenter.fit
        self.listener = Listener(speaker=speaker, votes=self.settings.votes, seed=seed, max_new_tokens=max_new_tokens)

    @property
    def device(self) -> torch.device:
        """Of the segmenter."""
        return self.segmenter.prompt_encoder.no_mask_embed.weight.device  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        kinds = [part.config.model_type for part in (self.speaker.model, self.segmenter)]
        return f"{' + '.join(kinds)}, {self.settings} on {self.device}"

    def saying(self, max_new_tokens: int) -> "WordsChain":
        """The same chain with another most tokens of an answer."""
        return WordsChain(self.speaker, self.segmenter, self.settings, self.seed, max_new_tokens, self.masks_per_pass)

    def check(self, query: str, form: Form) -> None:
        """Raises UserError for an empty query and an unknown form."""
        if not query.strip():
            raise UserError(f"the query is empty ({query!r}): ask for something in words")
        if form not in get_args(Form):
            raise UserError(f"form: found {form!r:.40}, expected one of {', '.join(get_args(Form))}")

    @torch.no_grad()
    def encode_image(self, image: Path | str | Image.Image) -> Seen:
        """Look at an image once. Raises DataError when it cannot be read."""
        opened = open_picture(image)
        pixels, resized = for_segmenter(opened, self.canvas, self.segmenter.config.model_type)
        features = self.segmenter.encode(pixels[None].to(self.device))
        return Seen(opened, self.speaker.look(opened), features, (opened.height, opened.width), resized)

    def read(self, answer: Answered) -> Reading:
        """What an answer says."""
        assert isinstance(answer, AnsweredInWords)
        return answer.reading

    @torch.no_grad()
    def generate(self, image: Seen, queries: Sequence[Query]) -> list[AnsweredInWords]:
        """The answers to the queries, in their order. Raises UserError as `check` does.

        A query of form `raw` goes in as it stands; what its answer points to is the target, with no level before it.
        """
        for query, form in queries:
            self.check(query, form)
        words, two = self.speaker.grounding, self.settings.levels == 2
        wording = words.locate if two else words.find
        raw = [number for number, (_, form) in enumerate(queries) if form == "raw"]
        prompts = [query if n in raw else wording.format(query=query) for n, (query, _) in enumerate(queries)]
        result = []
        for n, first in enumerate(self.listener.hear(image.look, prompts, raw)):
            seconds = self._second_looks(image, queries[n][0], first) if two and n not in raw else None
            places = places_of(first, seconds)
            chain: Chain = (None, 0) if two and seconds is None else (0,) * len(self.levels)
            result.append(self._answer(image, [first, *(seconds or [])], places, chain))
        return result

    def _second_looks(self, image: Seen, query: str, first: Heard) -> list[Heard]:
        """What is said about the target at each place of the first answer."""
        words = self.speaker.grounding
        if self.settings.crop:
            return [self._look_closer(image, query, place.box) for place in first.boxes]
        said = [words.say(place.box, image.size, image.look.resized) for place in first.boxes]
        return self.listener.hear(image.look, [words.inside.format(query=query, box=box) for box in said])

    def _look_closer(self, image: Seen, query: str, location: Box) -> Heard:
        """Ask for the target in a crop of the location."""
        left, top, right, bottom = widen(location, image.size)
        look = self.speaker.look(image.image.crop((left, top, right, bottom)))
        (heard,) = self.listener.hear(look, [self.speaker.grounding.find.format(query=query)])
        return replace(heard, boxes=tuple(replace(one, box=shift(one.box, left, top)) for one in heard.boxes))

    def _answer(self, image: Seen, heard: Sequence[Heard], places: Sequence[Place], chain: Chain) -> AnsweredInWords:
        """What was said to one query, with the masks of its places; those of one name are one target."""
        targets = group(places)
        spoken = [said for one in heard for said in one.spoken]
        length = sum(said.tokens for said in spoken)
        text = " -> ".join(" ".join(said.text.split()) for said in spoken)
        masks = [self.masks_of(image, each) for each in targets]  # a target: one mask a level
        empty = image.features.new_zeros((0, self.segmenter.mask_size, self.segmenter.mask_size))
        return AnsweredInWords(
            ids=[],
            score=sum(said.score * said.tokens for said in spoken) / max(length, 1),
            cut=any(said.cut for said in spoken),
            chains=[chain] * len(targets),
            states=image.features.new_zeros((len(self.levels), len(targets), 0)),
            tokens=image.features.new_zeros((len(self.levels), len(targets), 0)),
            low_res_logits=[
                torch.stack([own[level] for own in masks]) if masks else empty for level in range(len(chain))
            ],
            predicted_iou=[1.0] * len(targets),
            sure=[1.0] * len(targets),
            absent=0.0,
            reading=Reading(text, text, status_of(heard, places), phrases_of(targets)),
            said=length,
        )

    def masks_of(self, image: Seen, places: Sequence[Place]) -> list[Tensor]:
        """Low-res logits (H, W) of each level of one target, coarse to fine: of all its boxes together."""
        locations = [place.location for place in places if place.location is not None]
        coarse = self._decode(image, locations)
        owners = [n for n, place in enumerate(places) for _ in place.targets]
        boxes = [target.box for place in places for target in place.targets]
        fine = self._decode(image, boxes, coarse[owners] if locations else None)
        if len(self.levels) == 1:
            return [fine.amax(0)]
        return [coarse.amax(0) if locations else torch.zeros_like(fine[0]), fine.amax(0)]

    def _decode(self, image: Seen, boxes: Sequence[Box], prompt: Tensor | None = None) -> Tensor:
        """Low-res logits (masks, H, W) of boxes of the picture. `prompt` (masks, H, W): of the level before."""
        side = self.segmenter.mask_size
        found = [image.features.new_zeros((0, side, side))]
        for some in passes(len(boxes), self.masks_per_pass):
            canvas = torch.tensor([to_canvas(box, image.size, image.resized) for box in boxes[some]])
            sparse = self.segmenter.embed_boxes(canvas.to(self.device))
            index = torch.zeros(len(sparse), dtype=torch.long, device=sparse.device)
            guide = None if prompt is None else prompt[some]
            found.append(self.segmenter.decode(image.features, sparse, index, guide))
        return torch.cat(found)
