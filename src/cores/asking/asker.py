"""A model and its processor before images: features and prefixes once, then any number of questions, in batches.

Legend: questions = about one image or several, levels = of the chain, masks = any number of chains, dim = of a
prompt token, (h, w) = low-res masks, (H, W) = the picture's own size in pixels.
"""

from collections.abc import Callable, Generator, Hashable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from PIL import Image
from torch import Tensor

from cores.asking.absence import FirstWords
from cores.asking.answerer import Answerer, Follow, Query
from cores.asking.answers import Answered, decode, passes, segment_answers
from cores.asking.confidence import Confidence
from cores.asking.constrained import Constrained
from cores.asking.drafts import Drafts, Tally
from cores.asking.image_encoding import EncodedImage, ImageEncoding
from cores.asking.prefixes import Prefixes
from cores.asking.similarity import SimilarityMap, similarity_map
from cores.asking.thinking import Thinking
from cores.data.sample import Form, Turn
from cores.errors import UserError
from cores.modeling.generation import Choose, Generation, Said, generate, teacher_force
from cores.modeling.generation import Follow as Heard
from cores.modeling.model import CoresModel
from cores.modeling.sampling import Sampling, sampler
from cores.processing.processor import CoresProcessor
from cores.processing.reading import Reading

QUESTIONS_PER_PASS = 16  # each has a copy of the prefix's cache: 0.2 GB for 7B in 16 bits and a prefix of 400 tokens

DraftsFrom = Literal["call", "run", "off"]
ChainRule = Literal["free", "constrained"]


class Asker(Answerer[EncodedImage]):
    """Asks a model questions about images.

    Args:
        seed: for in-context exemplars drawn at random; an answer depends on it, the picture and the query alone.
        max_new_tokens: most tokens of a generated answer; None: the checkpoint's own.
        questions_per_pass: most questions that the language model, and masks that the mask decoder, work on at once;
            it bounds the memory and changes no answer.
        prefixes: those that the same model has read, for askers that come one after the other.
        drafts: what generated answers are guessed from, which changes no word of them, but how fast they come.
            `call`: the prompt's templates, and answers of the same call; so the last bits of an answer's numbers
            depend on the call alone. `run`: all answers that this asker gave. `off`: nothing, a token a pass.
            `Drafts`: these, which askers that come one after the other share.

        chain: `constrained`: every generated answer holds whole chains (`Constrained`), a token a pass.
        refine: masks of the last level are decoded once more, each with itself as its prompt.
        think: tokens of free reasoning before a generated answer, at most (`Thinking`); 0: none. It comes on top of
            `max_new_tokens`, a token a pass.
        confidence: of the checkpoint; with it answers have the signals that it reads, which takes a little more of
            the decoder and the head.

    `tally`: what its generated answers took so far.
    Raises UserError when `max_new_tokens` or `questions_per_pass` is no whole number from 1, or too few for a
    constrained chain, for a `think` below 0 or together with a constrained chain, and for other drafts.
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
        drafts: DraftsFrom | Drafts = "call",
        chain: ChainRule = "free",
        refine: bool = False,
        confidence: Confidence | None = None,
        think: int = 0,
    ) -> None:
        self.model, self.processor = model, processor
        self.encoding = ImageEncoding(model, processor, seed, Prefixes() if prefixes is None else prefixes)
        self.max_new_tokens = model.max_new_tokens if max_new_tokens is None else max_new_tokens
        self.questions_per_pass = questions_per_pass
        for name in ("max_new_tokens", "questions_per_pass"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise UserError(f"{name}: found {value!r:.40}, expected a whole number from 1")
        if not isinstance(drafts, Drafts) and drafts not in get_args(DraftsFrom):
            raise UserError(f"drafts: found {drafts!r:.40}, expected one of {', '.join(get_args(DraftsFrom))}")
        self.drafts, self.tally = drafts, Tally()
        self.chain, self.refine, self.confidence, self.think = chain, refine, confidence, think
        if type(think) is not int or think < 0:
            raise UserError(f"think: found {think!r:.40}, expected a whole number of tokens from 0")
        if think and chain != "free":
            raise UserError("think: an answer with a constrained chain has no free reasoning: leave one of them out")
        self._choose()  # what is wrong with a number is said at once
        self._drafts = drafts if isinstance(drafts, Drafts) else None  # else made when it is needed
        self.levels = [str(level["name"]) for level in model.config.levels]
        self.canvas, self.fit = model.segmenter.image_size, model.segmenter.fit

    def encode_image(self, image: Path | str | Image.Image) -> EncodedImage:
        """Look at an image once. Raises DataError when it cannot be read."""
        (found,) = self.encode_images([image])
        return found

    def encode_images(self, images: Sequence[Path | str | Image.Image]) -> list[EncodedImage]:
        """Look at several images once, in their order. Raises DataError when one cannot be read."""
        return self.encoding.encode(images)

    def check(self, query: str, form: Form) -> None:
        """Raises UserError for an empty query or an unknown form, DataError for one that holds the picture's marks."""
        self.processor.question(query, form)

    def read(self, answer: Answered) -> Reading:
        """What an answer says."""
        return self.processor.parse_answer(answer.ids)

    def talk_about(self, image: EncodedImage, said: Drafts | None = None) -> EncodedImage:
        """The image for a talk, in which each answer makes the next come faster. It changes no word of them.

        `said`: what was said in other talks, which go on from this one's answers, too.
        """
        return replace(image, drafts=None if self.drafts == "off" else said or self._drafter())

    def behind(self, image: EncodedImage, query: Query, answer: Answered) -> EncodedImage:
        """The image with a question and its answer behind it: the next question about it goes on from there."""
        question = self.processor.question(*query, follows=image.turn is not None)
        return replace(image, turn=(image, torch.tensor([*question.tolist(), *answer.ids, *self.processor.closing])))

    def text_of(self, ids: Sequence[int]) -> str:
        """The text of an answer's ids, as far as they are said."""
        return self.processor.parse_answer(ids).text

    def thought_of(self, answer: Answered) -> str:
        """The free reasoning before an answer, without its marks; empty where there is none."""
        return self.text_of(answer.thought.inner).strip()

    def generate(self, image: EncodedImage, queries: Sequence[Query]) -> list[Answered]:
        """The model's own answers to the queries, in their order.

        Raises UserError for an empty query or an unknown form, DataError for one that holds the picture's marks.
        """
        return self.generate_batch([image], [queries])[0]

    def generate_batch(
        self,
        images: Sequence[EncodedImage],
        queries: Sequence[Sequence[Query]],
        follow: Follow | None = None,
    ) -> list[list[Answered]]:
        """`generate` for several images, each with its own queries (none is allowed), in their order."""
        return self._answers(images, queries, None, follow)

    def draw_batch(
        self,
        images: Sequence[EncodedImage],
        queries: Sequence[Sequence[Query]],
        keys: Sequence[Sequence[Hashable]],
        samples: int,
        sampling: Sampling,
        follow: Follow | None = None,
    ) -> list[list[list[Answered]]]:
        """So many answers to each query, drawn by chance; their prefix is read once for all of them.

        `keys`: of each query, which with an answer's number say what it draws (see `sampler`). `follow` as in
        `generate_batch`; the query's number that it is told counts each query as often as it is answered.
        """
        repeated = [[query for query in own for _ in range(samples)] for own in queries]
        named = [(key, number) for own in keys for key in own for number in range(samples)]
        never = [self.processor.sizes.image_token_id]  # it would stand for a part of the picture
        flat = self._answers(images, repeated, None, follow, lambda some: sampler(sampling, named[some], never))
        return [[own[first : first + samples] for first in range(0, len(own), samples)] for own in flat]

    def stream(
        self, image: EncodedImage, query: Query, follow: Follow | None = None
    ) -> Generator[Sequence[int], None, Answered]:
        """`generate` of one query: gives the ids said so far after each pass, and returns the answer."""
        (question,) = self._questions([image], [[query]])
        (prefix,) = self.encoding.prefixes_of([image])
        heard = None if follow is None else _heard(follow, [(0, 0)])
        thinking = Thinking.of(self.processor, self.think, None)
        heard = heard if thinking is None else thinking.limited(self.max_new_tokens, heard)
        how = (thinking or self._choose(), image.drafts or self._drafter(), heard)
        answer = Generation(self.model, [prefix], [question], self.processor.closing, self._most(thinking), *how)
        while answer.open:
            answer.step()
            said = answer.told[0].said
            yield said if thinking is None else thinking.spoken(0, said)
        return self._segmented([image], answer.said(), [0], thinking)[0]

    def teacher_force(
        self, image: EncodedImage, queries: Sequence[Query], answers: Sequence[Turn | str | None]
    ) -> list[Answered]:
        """The same with given answers, as `CoresProcessor.answer_ids` takes them: only their states are read."""
        return self.teacher_force_batch([image], [queries], [answers])[0]

    def teacher_force_batch(
        self,
        images: Sequence[EncodedImage],
        queries: Sequence[Sequence[Query]],
        answers: Sequence[Sequence[Turn | str | None]],
    ) -> list[list[Answered]]:
        """`teacher_force` for several images, each with its own queries and answers, in their order."""
        return self._answers(images, queries, answers)

    def _answers(
        self,
        images: Sequence[EncodedImage],
        queries: Sequence[Sequence[Query]],
        given: Sequence[Sequence[Turn | str | None]] | None,
        follow: Follow | None = None,
        choose: Callable[[slice], Choose | None] = lambda some: None,
    ) -> list[list[Answered]]:
        """All questions of all images, `questions_per_pass` at a time, whoever's they are.

        `choose`: what chooses the words of some of the questions.
        """
        places = [(i, j) for i, (_, asked) in enumerate(zip(images, queries, strict=True)) for j in range(len(asked))]
        of, questions = [i for i, _ in places], self._questions(images, queries)
        answers = None if given is None else [self.processor.answer_ids(answer) for own in given for answer in own]
        found: list[list[Answered]] = [[] for _ in images]
        drafter = self._drafter() if given is None else None
        for some in passes(len(of), self.questions_per_pass):
            heard = None if follow is None else _heard(follow, places[some])
            own = None if answers is None else answers[some]
            told = self._pass(images, of[some], questions[some], own, drafter, heard, choose(some))
            for number, answer in zip(of[some], told, strict=True):
                found[number].append(answer)
        return found

    def _pass(
        self,
        images: Sequence[EncodedImage],
        of: Sequence[int],
        questions: Sequence[Tensor],
        answers: Sequence[Tensor] | None,
        drafter: Drafts | None,
        heard: Heard | None,
        choose: Choose | None,
    ) -> list[Answered]:
        """Questions side by side, each `of` the image of this number; `answers`: ids, None for the model's own."""
        numbers = list(dict.fromkeys(of))
        asked = [images[number] for number in numbers]
        own = dict(zip(numbers, self.encoding.prefixes_of(asked), strict=True))
        prefixes, closing = [own[number] for number in of], self.processor.closing
        if answers is None:
            thinking = Thinking.of(self.processor, self.think, choose)
            heard = heard if thinking is None else thinking.limited(self.max_new_tokens, heard)
            how: dict[str, Any] = {"choose": thinking or choose or self._choose(), "drafter": drafter, "follow": heard}
            said = generate(self.model, prefixes, questions, closing, self._most(thinking), **how)
            return self._segmented(asked, said, [numbers.index(number) for number in of], thinking)
        said = teacher_force(self.model, prefixes, questions, answers, closing)
        return self._masks(asked, said, [numbers.index(number) for number in of])

    def _segmented(
        self, images: Sequence[EncodedImage], said: Sequence[Said], of: Sequence[int], thinking: Thinking | None
    ) -> list[Answered]:
        """What the model said with its masks, each `of` the image of this number; thoughts are taken off."""
        if thinking is None:
            self.tally.count(said)
            return self._masks(images, said, of)
        apart = [thinking.apart(number, one) for number, one in enumerate(said)]
        self.tally.count([rest for _, rest in apart])
        answers = self._masks(images, [rest for _, rest in apart], of)
        return [replace(one, thought=thought) for one, (thought, _) in zip(answers, apart, strict=True)]

    def _masks(self, images: Sequence[EncodedImage], said: Sequence[Said], of: Sequence[int]) -> list[Answered]:
        """What was said with its masks, each `of` the image of this number."""
        features = [image.features for image in images]
        absent = None if self.confidence is None else self._first_words.absent(self.model, said)
        return segment_answers(self.model, features, said, of, self.questions_per_pass, self.refine, absent)

    def _most(self, thinking: Thinking | None) -> int:
        """The most tokens of what is said."""
        return self.max_new_tokens + (0 if thinking is None else thinking.room)

    @cached_property
    def _first_words(self) -> FirstWords:
        return FirstWords(self.processor)

    def _choose(self) -> Constrained | None:
        """Who chooses the words of one pass; None: the model alone."""
        if self.chain == "free":
            return None
        processor = self.processor
        template = processor.answer_ids().tolist()
        return Constrained(processor.token_ids, template, processor.closing, self.max_new_tokens)

    def as_question(self, phrase: str) -> str:
        """A phrase as a question, without what asks for a mask."""
        return self.processor.writer.as_question(phrase)

    def _questions(self, images: Sequence[EncodedImage], queries: Sequence[Sequence[Query]]) -> list[Tensor]:
        pairs = [(image, query) for image, asked in zip(images, queries, strict=True) for query in asked]
        return [self.processor.question(*query, follows=image.turn is not None) for image, query in pairs]

    def _drafter(self) -> Drafts | None:
        """Who guesses the answers of one call."""
        if self._drafts is None or self.drafts == "call":
            self._drafts = None if self.drafts == "off" else Drafts.of(self.processor)
        return self._drafts

    @torch.no_grad()
    def similarity(self, image: EncodedImage, answer: Answered) -> list[dict[str, SimilarityMap]]:
        """What each grounding token of an answer about this image is like: by level, for each of its chains.

        Raises UserError where the language model does not see a picture as one square of patches.
        """
        (prefix,) = self.encoding.prefixes_of([image])
        return [
            {
                name: similarity_map(answer.states[level, number], prefix.patches, self.processor.sizes, image.size)
                for level, name in enumerate(self.levels)
                if chain[level] is not None
            }
            for number, chain in enumerate(answer.chains)
        ]

    def decode(self, image: EncodedImage, tokens: Tensor, use_location: bool = True) -> list[Tensor]:
        """Low-res logits (masks, h, w) of each level, of prompt tokens (levels, masks, dim).

        `use_location` False: the last level without mask prompt and refiner.
        """
        of = [0] * tokens.shape[1]
        return decode(self.model, [image.features], tokens, of, self.questions_per_pass, use_location)


def _heard(follow: Follow, places: Sequence[tuple[int, int]]) -> Heard:
    """`follow`, told the numbers of image and query where it is given that of a question of one pass."""
    return lambda number, ids: follow(*places[number], ids)
