"""The lesson before the chain: to answer, to point, and to give the tiny model's prompt tokens.

Masks alone teach a chain slowly: a prompt token that means nothing yet draws the whole picture (docs/scenes.md). Here
the trained tiny model gives its own prompt token for each target, as the truth to be regressed where `[LOC]` and
`[SEG]` are predicted; beside it the states learn to point at the patches that show the location and the target.

Legend: masks = all targets of a batch, levels = 2, patches = 64, width = the language model's.
"""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cores.checkpoints.load import cast, load
from cores.checkpoints.runs.learned import fold_lora
from cores.data.mixture import Mixture
from cores.data.sources import open_source
from cores.modeling.model import CoresModel
from cores.modeling.packed_states import packed_states
from cores.processing import CoresProcessor
from cores.recipe import Recipe
from cores.scenes.pretrain.loop import Schedule, run
from cores.training.trainable import choose_parts

PICTURES = 2  # of a step
GRID = 8
SPLITS = ("scenes|phrasing", "scenes|test")
SCENES = 40  # of each split, measured at the end

log = logging.getLogger(__name__)


class Pointing(nn.Module):
    """How alike states (masks, width) and patches (masks, patches, width) are: logits (masks, patches)."""

    def __init__(self, width: int, inner: int = 128) -> None:
        super().__init__()
        self.query, self.key = (nn.Sequential(nn.RMSNorm(width), nn.Linear(width, inner)) for _ in range(2))

    def forward(self, states: Tensor, patches: Tensor) -> Tensor:
        found: Tensor = torch.einsum("mw,mpw->mp", self.query(states), self.key(patches))
        return found * states.shape[-1] ** -0.5


class Lesson:
    """A model that learns, its processor, and the tiny model that tells it what each prompt token should be."""

    def __init__(self, model: CoresModel, processor: CoresProcessor, recipe: Recipe) -> None:
        self.model, self.processor = model, processor
        self.teacher, self.its = load(device="cpu")
        source = open_source(recipe.data.sources["scenes"][0], None)
        self.draws = Mixture({"scenes": [source]}, questions=recipe.data.questions_per_image, explain=-1)
        width = model.mllm.width
        names = [f"{level} {depth}" for level in ("loc", "seg") for depth in ("middle", "top")]
        self.points = nn.ModuleDict({name: Pointing(width) for name in names})
        self._middle: list[Tensor] = []
        layers = model.mllm.model.language_model.layers
        layers[len(layers) // 2].register_forward_hook(lambda _, __, out: self._middle.append(out))

    def losses(self, samples: list[Any], indices: list[int]) -> tuple[Tensor, dict[str, float]]:
        """The loss of these samples, and figures: text loss, pointing hits, share of prompt tokens unexplained."""
        mode = "train" if self.points.training else "val"
        batch, theirs = (one.collate(samples, 0, 0, indices, mode) for one in (self.processor, self.its))
        row = batch["image_index"]
        with torch.no_grad():
            told = self.teacher(**{k: v for k, v in theirs.items() if k not in ("labels", "truth", "location_truth")})
        pixels = {"pixel_values": batch["pixel_values"]}
        self._middle.clear()
        with torch.autocast("cpu", torch.bfloat16):
            states = packed_states(self.model.mllm, batch["input_ids"], batch["segment_ids"], pixels)
            text = self.model._text_loss(states, batch["labels"])
            patches = self.model.mllm.encode_images(pixels)[row].float()
        figures = {"text": float(text.detach())}
        if not len(row):
            return text, figures
        places = [states[row, at].float() for at in batch["token_positions"]]  # (masks, width) a level
        wanted = told.tokens.float()  # (levels, masks, dim)
        given = self.model.projection(torch.stack(places).to(next(self.model.projection.parameters()).dtype)).float()
        spread = (wanted - wanted.mean(1, keepdim=True)).square().mean()
        missed = (given - wanted).square().mean((1, 2)) / spread.clamp(min=1e-6)  # (levels,)
        pointing = text.new_zeros(())
        truths = ([m for m in batch["location_truth"] if m is not None], batch["truth"])
        for level, at, state, masks in zip(("loc", "seg"), batch["token_positions"], places, truths, strict=True):
            share = F.adaptive_avg_pool2d(torch.stack(list(masks)).float()[:, None], GRID).flatten(1)
            share = share / share.sum(1, keepdim=True).clamp(min=1e-6)
            for depth, one in (("middle", self._middle[0][row, at].float()), ("top", state)):
                found = self.points[f"{level} {depth}"](one, patches)
                pointing = pointing - (share * found.log_softmax(-1)).sum(-1).mean()
            hit = share.gather(1, found.argmax(-1, keepdim=True)) > 0
            figures[f"hit {level}"] = float(hit.float().mean())
        figures["token loc"], figures["token seg"] = missed.tolist()
        return text + 0.25 * pointing + missed.sum(), figures

    def step(self, number: int) -> Tensor:
        """The loss of a step's own draws."""
        indices = [number * PICTURES + k for k in range(PICTURES)]
        return self.losses([self.draws[0, i] for i in indices], indices)[0]

    @torch.no_grad()
    def measure(self, split: str = "scenes|val", count: int = 4) -> dict[str, float]:
        """Means of the figures over scenes of a split, a few at a time."""
        unseen = open_source(split, None)
        self.points.eval()
        self.model.eval()
        found = []
        for first in range(0, count, 4):
            indices = list(range(first, min(first + 4, count)))
            found.append(self.losses([unseen[i] for i in indices], indices)[1])
        self.points.train()
        self.model.train()
        return {name: sum(f[name] for f in found) / len(found) for name in found[0]}


def teach(out: Path, model: CoresModel, processor: CoresProcessor, recipe: Recipe, steps: int) -> None:
    """Train adapters, projector and projection; `out`/lesson.pt holds what was learned, `out`/taught the whole model.

    Segmenter and refiner become the tiny model's, which read its prompt tokens.
    """
    torch.manual_seed(0)
    choose_parts(model, ["lora", "projector", "projection"], recipe.lora)
    lesson = Lesson(model, processor, recipe)
    for name in ("segmenter", "refiner"):
        getattr(model, name).load_state_dict(getattr(lesson.teacher, name).state_dict())
    learned = nn.ParameterList([p for p in model.parameters() if p.requires_grad])
    model.train()
    schedule = Schedule(steps=steps, peak=1e-3, warmup=10, fall=0.2, every=20)
    weights = [*learned, *lesson.points.parameters()]
    modules = {"learned": learned, "points": lesson.points}
    run(out / "lesson.pt", modules, weights, schedule, lesson.step, lesson.measure)
    for split in SPLITS:
        found = {name: round(value, 3) for name, value in lesson.measure(split, SCENES).items()}
        log.info("lesson, %d scenes of %s: %s", SCENES, split, found)
    cast(model, torch.float32)
    fold_lora(model)
    model.requires_grad_(False).eval()
    model.save_pretrained(out / "taught")
    processor.save_pretrained(out / "taught")
