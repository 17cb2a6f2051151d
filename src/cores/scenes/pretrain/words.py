"""Teach the tiny LLaVA that comes with cores to say boxes in words: the location's, and the target's inside it.

A lesson of minutes on one core. Whole scenes are asked for locations, for targets, and for targets inside a location
that is said; crops of locations, not quite right, for what is in them. What is not there is refused as before. Every
answer is plain text, so that a lesson is a batch of text-only conversations; the segmenter is not touched. Beside the
words, every state of an answer with one box learns what that box is, through a reader that is thrown away afterwards.

Where things are is known to the model's states before its first lesson: a linear reader finds the edges of the
location's box with an error of 6 px where an answer begins. What is new is the form of the answers and the digits.
Head and reader learn that first, on states that do not change. Then the language model's layers train, and no
embedding, projector or tower, whose vectors are where words and patches meet: with these trained too, everything that
was known of places was gone in forty steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from cores.checkpoints.load import load
from cores.checkpoints.save import Card, save
from cores.data.sample import Conversation, Sample, Turn
from cores.geometry import Size
from cores.modeling.model import CoresModel
from cores.processing.processor import CoresProcessor
from cores.scenes.kinds import LEARNED
from cores.scenes.pretrain.loop import Schedule, run
from cores.scenes.pretrain.render import bounds
from cores.scenes.pretrain.tower import WIDTH
from cores.scenes.questions import Asked, Question, draw_questions
from cores.scenes.scene import Scene
from cores.scenes.source import Scenes, open_scenes
from cores.vocabulary import UNSUPERVISED
from cores.words.boxes import Box, clip, widen
from cores.words.grounding import CORES

STEPS = 500
FIRST = 24  # batches of states from which head and reader learn alone
PICTURES, CROPS = 4, 18  # rows of a batch of whole scenes, and of one of crops: about as many tokens
NO_BOX = (float("nan"),) * 4
JITTER = 0.08  # of a box's side: how wrong a location may be
ABOUT = "The tiny model taught to say boxes in words. It knows drawn scenes of a few kinds of things, not photographs."


@dataclass(frozen=True, slots=True)
class Told:
    """A question and its answer; `box`: the one that the answer says, as shares of the square that is seen."""

    query: str
    answer: str
    box: Box | None = None


@dataclass(frozen=True, slots=True)
class Lesson:
    """A picture and what is told about it."""

    picture: Image.Image
    told: tuple[Told, ...]

    @property
    def sample(self) -> Sample:
        turns = [Turn(one.query, one.answer, form="raw") for one in self.told]
        size = (self.picture.height, self.picture.width)
        return Sample(self.picture, size, tuple(Conversation((turn,)) for turn in turns))


class Lessons:
    """Lessons about scenes of a source. `refusal`: what is said of something that is not there."""

    def __init__(self, source: Scenes, refusal: str) -> None:
        self.source, self.refusal = source, refusal

    def batch(self, number: int) -> list[Lesson]:
        """The lessons of a step: two of three are whole scenes, every third is crops."""
        rng = Random(f"words {number}")
        if number % 3 < 2:
            return [self.whole(rng.randrange(len(self.source)), rng) for _ in range(PICTURES)]
        cut: list[Lesson] = []
        while len(cut) < CROPS:
            one = self.crop(rng.randrange(len(self.source)), rng)
            cut += [] if one is None else [one]
        return cut

    def whole(self, i: int, rng: Random) -> Lesson:
        """Scene i: every question asked for the location, and for the target with or without the location said."""
        scene, questions = self._questions(i)
        size, told = scene.objects.shape, []
        for q in questions:
            if q.family == "text":
                told.append(Told(q.query, q.answer or ""))
                continue
            places = [box for asked in q.targets for box in boxes_of(scene, asked, whole=True)]
            told.append(self._tell(CORES.locate.format(query=q.query), scene, q.targets, whole=True))
            query = CORES.find.format(query=q.query)
            if len(places) == 1 and rng.random() < 0.5:
                query = CORES.inside.format(query=q.query, box=say(jitter(places[0], size, rng), size))
            told.append(self._tell(query, scene, q.targets))
        return Lesson(scene.picture, tuple(told))

    def crop(self, i: int, rng: Random) -> Lesson | None:
        """A crop of one location of scene i, asked for what one question wants there; None when nothing is wanted."""
        scene, questions = self._questions(i)
        choices = [(q, asked, n) for q in questions for asked in q.targets for n in asked.things]
        if not choices:
            return None
        q, asked, n = rng.choice(choices)
        left, top, right, bottom = widen(jitter(box_of(scene, n), scene.objects.shape, rng), scene.objects.shape)
        x1, y1, x2, y2 = box_of(scene, n, asked.part)
        box = (max(x1 - left, 0.0), max(y1 - top, 0.0), min(x2, right) - left, min(y2, bottom) - top)
        size = (bottom - top, right - left)
        named = f"{asked.phrase}: it" if len(q.targets) > 1 else "It"
        told = Told(CORES.find.format(query=q.query), f"{named} is {say(box, size)}.", share(box, size))
        return Lesson(scene.picture.crop((left, top, right, bottom)), (told,))

    def _questions(self, i: int) -> tuple[Scene, list[Question]]:
        scene, source = self.source.scene(i), self.source
        return scene, draw_questions(scene, LEARNED, source.scene_seed(i), source.questions, source.split)

    def _tell(self, query: str, scene: Scene, targets: Sequence[Asked], whole: bool = False) -> Told:
        """The answer in words: each target's boxes, named where there are several; a refusal where there is none."""
        verb, size = "usually appears on" if whole else "is", scene.objects.shape
        boxes = [boxes_of(scene, asked, whole) for asked in targets]
        said = [" ".join(say(box, size) for box in each) for each in boxes]
        if len(targets) > 1:
            told = " ".join(f"{asked.phrase}: it {verb} {one}." for asked, one in zip(targets, said, strict=True))
        else:
            told = f"It {verb} {said[0]}." if said else self.refusal
        single = [box for each in boxes for box in each]
        return Told(query, told, share(single[0], size) if len(single) == 1 else None)


def boxes_of(scene: Scene, asked: Asked, whole: bool = False) -> list[Box]:
    """The boxes of a target's things, or of its part; `whole`: of the things that they are on."""
    return [box_of(scene, n, None if whole else asked.part) for n in asked.things]


def box_of(scene: Scene, thing: int, part: str | None = None) -> Box:
    """The box of what shows of a thing or of its part, in pixels."""
    left, top, right, bottom = bounds(scene.mask(thing, part))
    return float(left), float(top), float(right), float(bottom)


def jitter(box: Box, size: Size, rng: Random) -> Box:
    """A box whose edges are moved by chance within the picture (h, w), as a model's own are."""
    across, down = (box[2] - box[0]) * JITTER, (box[3] - box[1]) * JITTER
    x1, y1, x2, y2 = (edge + rng.gauss(0, reach) for edge, reach in zip(box, (across, down) * 2, strict=True))
    return clip((x1, y1, x2, y2), size) or box


def say(box: Box, size: Size) -> str:
    """A box of a picture (h, w) in the model's words."""
    return CORES.say(box, size, size)


def share(box: Box, size: Size) -> Box:
    """A box of a picture (h, w) as shares of the square that it is seen in."""
    side, (h, w) = max(size), size
    left, top = (side - w) // 2, (side - h) // 2
    return (box[0] + left) / side, (box[1] + top) / side, (box[2] + left) / side, (box[3] + top) / side


class Pupil(nn.Module):
    """The model, and the reader of boxes."""

    def __init__(self, model: CoresModel, processor: CoresProcessor) -> None:
        super().__init__()
        self.mllm = model.mllm
        self.reader = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, 4))
        self._held = (model, processor)  # in a tuple: no parts of the pupil's own state
        self.requires_grad_(False)
        for part in self.trained:
            part.requires_grad_()

    @property
    def trained(self) -> tuple[nn.Module, ...]:
        """The language model's layers, the norm after them, the head and the reader."""
        llama = self.mllm.model.language_model
        return llama.layers, llama.norm, self.mllm.get_output_embeddings(), self.reader

    @property
    def weights(self) -> list[nn.Parameter]:
        return [weight for weight in self.parameters() if weight.requires_grad]

    def losses(self, lessons: Sequence[Lesson]) -> tuple[Tensor, dict[str, float]]:
        """The loss of a batch, and its figures, as `loss_of` gives them."""
        return self.loss_of(*self.states(lessons))

    def states(self, lessons: Sequence[Lesson]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of all tokens of the answers of a batch: the state that predicts each (tokens, width), the token (tokens,),
        whether it is an answer's first, and its answer's box (tokens, 4), nan for none."""
        model, processor = self._held
        batch = processor.collate([one.sample for one in lessons], 0, 0, range(len(lessons)), mode="val")
        states = model(batch["input_ids"], batch["segment_ids"], batch["pixel_values"]).hidden_states
        labels = batch["labels"]
        keep = labels[:, 1:] != UNSUPERVISED
        rows, places = keep.nonzero(as_tuple=True)
        number = batch["segment_ids"][rows, places + 1].tolist()
        boxes = [lessons[row].told[n - 1].box or NO_BOX for row, n in zip(rows.tolist(), number, strict=True)]
        first = (labels[:, :-1] == UNSUPERVISED)[keep]
        return states[:, :-1][keep], labels[:, 1:][keep], first, torch.tensor(boxes)

    def loss_of(self, states: Tensor, wanted: Tensor, first: Tensor, boxes: Tensor) -> tuple[Tensor, dict[str, float]]:
        """The loss; how many tokens are right, their loss, and how wrong boxes are read, in hundredths of the side.

        The first token counts as much as all: it decides whether there is a box.
        """
        logits = self.mllm.logits(states).float()
        each = F.cross_entropy(logits, wanted, reduction="none")
        known = ~boxes.isnan().any(1)
        read, truth = self.reader(states[known]), boxes[known]
        error = F.smooth_l1_loss(read, truth, beta=0.05) if len(truth) else states.sum() * 0
        figures = {
            "right": float((logits.argmax(-1) == wanted).float().mean()),
            "words": float(each.mean().detach()),
            "off": float((read - truth).detach().abs().mean()) * 100 if len(truth) else 0.0,
        }
        return each.mean() + each[first].mean() + 8 * error, figures


def warm_up(pupil: Pupil, lessons: Lessons, steps: int = 200) -> None:
    """Teach head and reader the form of the answers, on the states of `FIRST` batches, which stay as they are."""
    with torch.no_grad():
        parts = [pupil.states(lessons.batch(n)) for n in range(FIRST)]
    states, wanted, first, boxes = (torch.cat(part) for part in zip(*parts, strict=True))
    weights = [*pupil.mllm.get_output_embeddings().parameters(), *pupil.reader.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=2e-3)
    order = torch.Generator().manual_seed(0)
    for _ in range(steps):
        some = torch.randperm(len(states), generator=order)[:1024]
        loss, _ = pupil.loss_of(states[some], wanted[some], first[some], boxes[some])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def teach(out: Path, source: Scenes | None = None, steps: int = STEPS, peak: float = 4e-4, every: int = 40) -> Path:
    """Train the language model's layers of the shipped model on the lesson; gives the taught model's folder.

    `out` holds the state, `words.pt`, from which a stopped lesson goes on, and in the end the model, `out`/model.
    """
    model, processor = load(None, "cpu", torch.float32)
    torch.manual_seed(0)
    pupil = Pupil(model, processor)
    refusal = processor.writer.words.refusals[0]
    lessons, exam = Lessons(source or open_scenes("train"), refusal), Lessons(open_scenes("val"), refusal)

    @torch.no_grad()
    def measure() -> dict[str, float]:
        return {
            f"{name} {figure}": value
            for name, n in (("whole", 0), ("crops", 2))
            for figure, value in pupil.losses(exam.batch(n))[1].items()
        }

    out.mkdir(parents=True, exist_ok=True)
    schedule = Schedule(steps=steps, peak=peak, warmup=max(1, min(30, steps // 5)), fall=0.6, every=every)
    state = out / "words.pt"
    if not state.exists():
        warm_up(pupil, lessons)
    run(state, {"pupil": pupil}, pupil.weights, schedule, lambda n: pupil.losses(lessons.batch(n))[0], measure)
    return save(model, processor, out / "model", card=Card(about=ABOUT, data=("scenes|train",)), replace=True)
