"""Teach the tiny LLaVA that comes with cores to say boxes in words: the location's, and the target's inside it.

A lesson of minutes on one core. Whole scenes are asked for locations, for targets, and for targets inside a location
that is said; crops of locations, not quite right, for what is in them. What is not there is refused as before. Every
answer is plain text, so that a lesson is a batch of text-only conversations; the segmenter is not touched.
"""

import logging
from pathlib import Path
from random import Random

import torch
from torch import Tensor
from torch.nn import functional as F

from cores.checkpoints.load import load
from cores.checkpoints.save import Card, save
from cores.data.sample import Conversation, Sample, Turn
from cores.modeling.model import CoresModel
from cores.processing.processor import CoresProcessor
from cores.scenes.kinds import LEARNED
from cores.scenes.pretrain.loop import Schedule, run
from cores.scenes.pretrain.render import bounds
from cores.scenes.questions import Asked, Question, draw_questions
from cores.scenes.scene import Scene
from cores.scenes.source import Scenes, open_scenes
from cores.vocabulary import UNSUPERVISED
from cores.words.boxes import Box, widen
from cores.words.grounding import CORES

log = logging.getLogger(__name__)
STEPS = 450
PICTURES, CROPS = 12, 56  # rows of a batch of whole scenes, and of one of crops: about as many tokens
JITTER = 0.08  # of a box's side: how wrong a location may be
ABOUT = "The tiny model taught to say boxes in words. It knows drawn scenes of a few kinds of things, not photographs."


class Lessons:
    """Conversations about scenes whose answers are boxes in words, as batches of the model's own processor."""

    def __init__(self, processor: CoresProcessor, source: Scenes) -> None:
        self.processor, self.source = processor, source
        self.refusal = processor.writer.words.refusals[0]

    def questions(self, i: int) -> tuple[Scene, list[Question]]:
        """Scene i and what is asked about it."""
        scene = self.source.scene(i)
        return scene, draw_questions(scene, LEARNED, self.source.scene_seed(i), self.source.questions, self.source.split)

    def whole(self, i: int, rng: Random) -> Sample:
        """Scene i: every question asked for the location, and for the target with or without the location said."""
        scene, questions = self.questions(i)
        turns = []
        for q in questions:
            if q.family == "text":
                turns.append(Turn(q.query, q.answer, form="raw"))
                continue
            side = scene.objects.shape[0]
            places = [box for asked in q.targets for box in boxes_of(scene, asked, whole=True)]
            turns.append(_turn(CORES.locate(q.query), self.say(scene, q.targets, whole=True)))
            found = self.say(scene, q.targets)
            if len(places) == 1 and rng.random() < 0.5:
                said = CORES.say(jitter(places[0], rng), (side, side))
                turns.append(_turn(CORES.find(q.query, said), found))
            else:
                turns.append(_turn(CORES.find(q.query), found))
        return Sample(scene.picture, scene.objects.shape, tuple(Conversation((turn,)) for turn in turns))

    def crop(self, i: int, rng: Random) -> Sample | None:
        """A crop of one location of scene i, asked for what one question wants there; None when it has none."""
        scene, questions = self.questions(i)
        choices = [(q, asked, n) for q in questions for asked in q.targets for n in asked.things]
        if not choices:
            return None
        q, asked, n = rng.choice(choices)
        place = jitter(_bounds(scene, n, None), rng)
        left, top, right, bottom = widen(place, scene.objects.shape)
        x1, y1, x2, y2 = _bounds(scene, n, asked.part)
        inside = (max(x1 - left, 0.0), max(y1 - top, 0.0), min(x2, right) - left, min(y2, bottom) - top)
        size = (bottom - top, right - left)
        named = f"{asked.phrase}: " if len(q.targets) > 1 else ""
        turn = _turn(CORES.find(q.query), f"{named}{CORES.say(inside, size)}")
        return Sample(scene.picture.crop((left, top, right, bottom)), size, (Conversation((turn,)),))

    def say(self, scene: Scene, targets: tuple[Asked, ...], whole: bool = False) -> str:
        """The answer in words: boxes, each target named where there are several; a refusal where there is none."""
        if not targets:
            return self.refusal
        said = []
        for asked in targets:
            boxes = " ".join(CORES.say(box, scene.objects.shape) for box in boxes_of(scene, asked, whole))
            said.append(f"{asked.phrase}: {boxes}." if len(targets) > 1 else boxes)
        return " ".join(said)

    def batch(self, number: int) -> list[Sample]:
        """The samples of a step: two of three are whole scenes, every third is crops."""
        rng = Random(f"words {number}")
        if number % 3 < 2:
            return [self.whole(rng.randrange(len(self.source)), rng) for _ in range(PICTURES)]
        cut: list[Sample] = []
        while len(cut) < CROPS:
            one = self.crop(rng.randrange(len(self.source)), rng)
            cut += [] if one is None else [one]
        return cut


def boxes_of(scene: Scene, asked: Asked, whole: bool = False) -> list[Box]:
    """The boxes of a target's things, or of its part; `whole`: of the things that they are on."""
    return [_bounds(scene, n, None if whole else asked.part) for n in asked.things]


def _bounds(scene: Scene, thing: int, part: str | None) -> Box:
    left, top, right, bottom = bounds(scene.mask(thing, part))
    return float(left), float(top), float(right), float(bottom)


def jitter(box: Box, rng: Random) -> Box:
    """A box whose edges are moved by chance, as a model's own are."""
    across, down = (box[2] - box[0]) * JITTER, (box[3] - box[1]) * JITTER
    x1, y1, x2, y2 = (edge + rng.gauss(0, reach) for edge, reach in zip(box, (across, down) * 2, strict=True))
    return max(0.0, x1), max(0.0, y1), x2, y2


def _turn(query: str, answer: str) -> Turn:
    return Turn(query, answer, form="raw")


def loss_of(model: CoresModel, processor: CoresProcessor, samples: list[Sample]) -> tuple[Tensor, float]:
    """The text loss of a batch, and the share of its tokens that would be said right.

    The first token counts as much as all: it decides whether there is a box.
    """
    batch = processor.collate(samples, 0, 0, range(len(samples)), mode="val")
    labels = batch["labels"]
    out = model(batch["input_ids"], batch["segment_ids"], batch["pixel_values"])
    keep = labels[:, 1:] != UNSUPERVISED
    logits = model.mllm.logits(out.hidden_states[:, :-1][keep]).float()
    wanted = labels[:, 1:][keep]
    each = F.cross_entropy(logits, wanted, reduction="none")
    first = (labels[:, :-1] == UNSUPERVISED)[keep]
    right = float((logits.argmax(-1) == wanted).float().mean())
    return each.mean() + each[first].mean(), right


def teach(out: Path, source: Scenes | None = None, steps: int = STEPS, peak: float = 1e-3, every: int = 25) -> Path:
    """Train language model, projector and tower of the shipped model on the lesson; gives the taught model's folder.

    `out` holds the state, `words.pt`, from which a stopped lesson goes on, and in the end the model, `out`/model.
    """
    model, processor = load(None, "cpu", torch.float32)
    model.train()
    weights = [weight.requires_grad_() for weight in model.mllm.parameters()]
    lessons = Lessons(processor, source or open_scenes("train"))
    exam = Lessons(processor, open_scenes("val"))

    @torch.no_grad()
    def measure() -> dict[str, float]:
        model.eval()
        found = {name: loss_of(model, processor, exam.batch(n))[1] for name, n in (("whole", 0), ("crops", 2))}
        model.train()
        return found

    out.mkdir(parents=True, exist_ok=True)
    schedule = Schedule(steps=steps, peak=peak, warmup=max(1, min(30, steps // 5)), fall=0.6, every=every)
    run(
        out / "words.pt",
        {"model": model.mllm},
        weights,
        schedule,
        lambda number: loss_of(model, processor, lessons.batch(number))[0],
        measure,
    )
    model.eval()
    return save(model, processor, out / "model", card=Card(about=ABOUT, data=("scenes|train",)), replace=True)
