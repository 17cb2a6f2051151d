"""Recipes: every setting of a training run as typed sections, from YAML and `section.key=value` flags. No torch.

A recipe is a YAML file of sections, each a dataclass below. `extends: NAME` takes another recipe's values first. The
section `trainer` holds transformers' TrainingArguments under their own names (`trainer_section`).
"""

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Any, Literal, get_type_hints

import yaml

from cores import trainer_section
from cores.errors import RecipeError
from cores.loss_keys import LOSS_KEYS
from cores.prompts.settings import PromptSection
from cores.recipe_files import Said, read
from cores.typed_yaml import describe, fits, nearest

Encoder = Literal["segmenter", "projector"]
Part = Literal[
    "lora",
    "vision_tower",
    "projector",
    "language_model",
    "embeddings",
    "head",
    "projection",
    "refiner",
    "image_encoder",
    "prompt_encoder",
    "mask_decoder",
]
PAPER_PARTS: tuple[Part, ...] = ("lora", "embeddings", "head", "projection", "refiner", "mask_decoder")


# What a model of bases is where the recipe does not say.
OF_BASES: dict[str, Any] = {"levels": 2, "refiner": "paper", "segmenting": "chain", "style": "paper"}


@dataclass(kw_only=True)
class ModelSection:
    """What is trained. One of `start`, `bases`, or `mllm` with `segmenter` says where the weights come from.

    `start`: a CoReS checkpoint to go on from (model folder, run folder, hub id; `shipped`: the one that comes with
    cores). `bases`: a folder that holds `mllm/` and `segmenter/` (`shipped`: the tiny ones). `mllm`, `segmenter`:
    folders or hub ids in transformers' format. `levels` (1: target; 2: location, target; 3: location, part, target),
    `refiner`, `style` and `segmenting` (chain: each mask guides the next; apart: the last by itself; twice: the only
    one twice): with `start` the checkpoint's own, else 2, `paper` and `chain`. `train`: the parts that train;
    everything else is frozen. `dtype`: of frozen weights. `masks_per_pass`: most masks that the mask decoder works on
    at once: fewer take less memory and a little more time, and change no number. `checkpoint_decoder`: each level of
    masks is computed again for its gradients, so that memory is that of one; `compile_decoder`: by `torch.compile`.
    `quantize`: the frozen language model in 4 bits (QLoRA), on CUDA.
    """

    start: str | None = None
    bases: str | None = None
    mllm: str | None = None
    segmenter: str | None = None
    levels: Literal[1, 2, 3] | None = None
    refiner: Literal["none", "paper", "published", "region"] | None = None
    segmenting: Literal["chain", "apart", "twice"] | None = None
    style: Literal["paper", "published", "lisa"] | None = None
    train: list[Part] = field(default_factory=lambda: list(PAPER_PARTS))
    dtype: Literal["float32", "bfloat16"] = "float32"
    attn_implementation: Literal["sdpa", "eager", "flex_attention", "flash_attention_2"] = "sdpa"
    masks_per_pass: int = 16
    checkpoint_decoder: bool = False
    compile_decoder: bool = False
    quantize: Literal["4bit"] | None = None

    def problems(self) -> Iterator[str]:
        """What is missing or contradicts itself here, a line each."""
        if self.masks_per_pass < 1:
            yield f"model.masks_per_pass: found {self.masks_per_pass}, expected at least 1"
        given = [name for name in ("start", "bases", "mllm") if getattr(self, name)]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            yield f"model: start, bases or mllm says where the weights come from: give one; found {found}"
        if bool(self.mllm) != bool(self.segmenter):
            yield "model.mllm and model.segmenter go together: give both"
        if "lora" in self.train and "language_model" in self.train:
            yield "model.train: lora and language_model exclude each other: adapters or the whole, not both"
        if self.quantize and "language_model" in self.train:
            yield "model.quantize: weights in few bits cannot train: take lora in place of language_model"
        if self.attn_implementation == "flash_attention_2":
            yield "model.attn_implementation: flash_attention_2 does not keep packed questions apart: take sdpa"


@dataclass(kw_only=True)
class LoraSection:
    """Low-rank adapters on the language model, where `model.train` holds `lora`. `targets`: its layers' names."""

    r: int = 8
    alpha: float = 16
    dropout: float = 0.05
    targets: list[str] = field(default_factory=lambda: ["q_proj", "v_proj"])

    def problems(self) -> Iterator[str]:
        """Numbers out of their range, a line each."""
        if self.r < 1:
            yield f"lora.r: found {self.r}, expected at least 1; to train without, take lora out of model.train"
        if not 0 <= self.dropout < 1:
            yield f"lora.dropout: found {self.dropout}, expected a share below 1"


@dataclass(kw_only=True)
class DataSection:
    """What is asked. `sources`: families of source names; `rates`: how often each family is drawn (default 1).

    A draw takes a family by rate, one of its sources and one of its images with equal chances, then up to
    `questions_per_image` questions; `explain`: chance that an image with an explanation is asked for that alone, -1
    for never. `steps_per_epoch`: optimiser steps that make an epoch; None: as many draws as there are images, in
    whole steps. `on_bad`: images that cannot be used end the run, or are left out, up to one in a hundred. `dir`: the
    data directory. `features`: a folder to keep the frozen segmenter's features in, up to `features_gb`, so that each
    picture is encoded once; `features_dtype`: exactly, or rounded to bfloat16 at half the size. `pixels`: how large
    pictures are made small: `exact`, as everywhere else; `close`, in half the time and within one grey level;
    `draft`, JPEGs decoded at fewer pixels, faster still and not so close.
    """

    dir: str | None = None
    sources: dict[str, list[str]] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    questions_per_image: int = 3
    explain: float = 0.1
    on_bad: Literal["error", "skip"] = "error"
    steps_per_epoch: int | None = None
    features: str | None = None
    features_of: list[Encoder] = field(default_factory=lambda: ["segmenter"])
    features_dtype: Literal["exact", "bfloat16"] = "exact"
    features_gb: float = 100.0
    pixels: Literal["exact", "close", "draft"] = "exact"

    def problems(self) -> Iterator[str]:
        """No source, rates of families that are not there, numbers out of their range; a line each."""
        if not any(self.sources.values()):
            yield "data.sources: name at least one, such as data.sources.mine=[ReasonSeg|train]"
        for family, rate in self.rates.items():
            if family not in self.sources:
                yield f"data.rates.{family}: there is no data.sources.{family}{nearest(family, self.sources)}"
            elif rate <= 0:
                yield f"data.rates.{family}: found {rate}, expected more than 0; leave out what is not drawn"
        if not self.features_of or len(set(self.features_of)) < len(self.features_of):
            yield f"data.features_of: found {self.features_of}, expected segmenter, projector or both"
        if not self.features_gb > 0:
            yield f"data.features_gb: found {self.features_gb}, expected more than 0"
        if self.features is not None and self.pixels != "exact":
            yield f"data.features: are of exact pictures; data.pixels is {self.pixels}: take exact, or no features"
        for name in ("questions_per_image", "steps_per_epoch"):
            if (getattr(self, name) or 1) < 1:
                yield f"data.{name}: found {getattr(self, name)}, expected at least 1"


_LossFields: Any = make_dataclass(
    "_LossFields", [(key.recipe, key.type | None, None) for key in LOSS_KEYS], kw_only=True
)


class LossSection(_LossFields):
    """Weights of the losses; None: the style's. `location`: of a mask loss at the levels before the last, too.

    `balanced_bce`: inside and outside of a mask weigh the same. `ignore_255`: leave ignored pixels out. `resolution`:
    `low` takes the losses at the mask decoder's own resolution. `loss_normalization`: `batch` takes means over the
    whole step, however it is cut into processes and micro-batches; `micro`, as the published programs, takes them in
    each micro-batch and then the mean of these.
    """

    def problems(self) -> Iterator[str]:
        """Weights below 0, a line each."""
        for name, value in vars(self).items():
            if isinstance(value, float | int) and value < 0:
                yield f"losses.{name}: found {value}, expected at least 0"


@dataclass(kw_only=True)
class EvaluationSection:
    """What says which checkpoint is the best, by gIoU. Without `sources` nothing does. `limit`: images of each.

    `pictures`: how many are drawn with every level's masks each time. `patience`: after so many evaluations without
    a better one the run ends early; None: it never does.
    """

    sources: list[str] = field(default_factory=list)
    limit: int | None = None
    answers: Literal["generated", "teacher-forced"] = "teacher-forced"
    pictures: int = 6
    patience: int | None = None

    def problems(self) -> Iterator[str]:
        """Numbers out of their range, a line each."""
        for name in ("limit", "patience"):
            if (value := getattr(self, name)) is not None and value < 1:
                yield f"evaluation.{name}: found {value}, expected at least 1"
        if self.pictures < 0:
            yield f"evaluation.pictures: found {self.pictures}, expected at least 0"


@dataclass(kw_only=True)
class ReinforcementSection:
    """Learning from rewards (GRPO, docs/reinforce.md).

    `samples`: answers drawn to every question; 0: none, the usual run. `temperature`, `top_p`: how words are drawn;
    `max_new_tokens`: most of an answer, None: the checkpoint's own. `rewards`: weights of `iou`, `form`, `refusal`,
    `location`. `scaled`: rewards are divided by their spread in a group. `updates`: optimiser steps that learn from
    one drawing of answers; from the second on, `clip` and `clip_high` (None: as `clip`) bound how far a word's ratio
    may go below and above 1. `kl`: weight of the divergence from the model at the start. `supervised`: the usual
    losses of given answers, by their weights in `losses`, train in the same step, too, each behind a drawn thought
    where there are any. `think`: tokens of free reasoning before an answer, at most; 0: none. `think_cost`: subtracted
    from the reward of a thought that takes them all, and of a shorter one its share.
    """

    samples: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int | None = None
    rewards: dict[str, float] = field(
        default_factory=lambda: {"iou": 1.0, "form": 0.25, "refusal": 0.5, "location": 0.0}
    )
    scaled: bool = True
    updates: int = 1
    clip: float = 0.2
    clip_high: float | None = None
    kl: float = 0.02
    supervised: bool = False
    think: int = 0
    think_cost: float = 0.1

    def problems(self) -> Iterator[str]:
        """Numbers out of their range and rewards that are none, a line each."""
        if self.samples < 0 or self.samples == 1:
            yield f"reinforcement.samples: found {self.samples}, expected at least 2, to be compared, or 0 for none"
        if self.temperature <= 0:
            yield f"reinforcement.temperature: found {self.temperature}, expected more than 0: one answer is no choice"
        if self.think > 0 and not self.samples:
            yield "reinforcement.think: only drawn answers have thoughts: set reinforcement.samples, or leave it out"
        if not 0 < self.top_p <= 1:
            yield f"reinforcement.top_p: found {self.top_p}, expected more than 0 and at most 1"
        for name in ("max_new_tokens", "updates"):
            if (value := getattr(self, name)) is not None and value < 1:
                yield f"reinforcement.{name}: found {value}, expected at least 1"
        for name in ("clip", "clip_high", "kl", "think", "think_cost"):
            if (getattr(self, name) or 0) < 0:
                yield f"reinforcement.{name}: found {getattr(self, name)}, expected at least 0"
        wanted = {"iou", "form", "refusal", "location"}
        if set(self.rewards) != wanted:
            yield f"reinforcement.rewards: found {', '.join(self.rewards)}; give each of {', '.join(sorted(wanted))}"

    def conflicts(self, recipe: "Recipe") -> Iterator[str]:
        """What of a recipe's other sections does not go with drawn answers, a line each."""
        if not self.samples:
            return
        for name in ("fsdp", "deepspeed"):
            if recipe.trainer.get(name):
                yield f"reinforcement: answers are drawn by a whole model, not one that trainer.{name} cuts: use DDP"
        if recipe.data.features is not None:
            yield "reinforcement: data.features is for given answers alone: leave it out"
        if recipe.data.pixels != "exact":
            yield f"reinforcement: wants exact pictures, data.pixels is {recipe.data.pixels}"


@dataclass(kw_only=True)
class Recipe:
    """All settings of a run, resolved."""

    model: ModelSection = field(default_factory=ModelSection)
    lora: LoraSection = field(default_factory=LoraSection)
    prompt: PromptSection = field(default_factory=PromptSection)
    data: DataSection = field(default_factory=DataSection)
    losses: LossSection = field(default_factory=LossSection)
    evaluation: EvaluationSection = field(default_factory=EvaluationSection)
    reinforcement: ReinforcementSection = field(default_factory=ReinforcementSection)
    trainer: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, None only where it was said of the trainer: `load_recipe` reads back an equal recipe."""
        return {
            name: {key: value for key, value in section.items() if value is not None or name == "trainer"}
            for name, section in dataclasses.asdict(self).items()
            if name != "reinforcement" or self.reinforcement.samples
        }

    def to_yaml(self) -> str:
        """`to_dict` as a recipe's file."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True, width=119)


SECTIONS = get_type_hints(Recipe)


def load_recipe(name: str | Path, settings: Iterable[str] = ()) -> Recipe:
    """A recipe by path or name, with `section.key=value` settings over it.

    Raises RecipeError with all that is wrong: unknown keys and the nearest known ones, values of a wrong type,
    settings that contradict each other.
    """
    return read_recipe(name, settings)[0]


def read_recipe(name: str | Path, settings: Iterable[str] = ()) -> tuple[Recipe, Said]:
    """As `load_recipe`, with where each value was said."""
    said = read(name)
    problems = [problem for setting in settings for problem in said.set(setting)]
    recipe = Recipe()
    problems += _fill(recipe, said.values)
    for section in vars(recipe).values():
        if not isinstance(section, dict):
            problems += section.problems()
    problems += recipe.reinforcement.conflicts(recipe)
    if problems:
        raise RecipeError(f"recipe {name}: " + "; ".join(problems))
    return recipe, said


def _fill(recipe: Recipe, values: dict[str, Any]) -> Iterator[str]:
    """Put plain values into the sections; what does not fit."""
    for name, inner in values.items():
        if name not in SECTIONS:
            yield f"there is no section {name}{nearest(name, SECTIONS)}"
        elif not isinstance(inner, dict):
            yield f"{name}: expected a section, found {inner!r}"
        elif name == "trainer":
            yield from trainer_section.problems(inner)
            recipe.trainer.update(inner)
        else:
            hints = get_type_hints(SECTIONS[name])
            for key, value in inner.items():
                if key not in hints:
                    yield f"there is no {name}.{key}{nearest(key, hints)}"
                elif not fits(value, hints[key]):
                    yield f"{name}.{key}: found {value!r}, expected {describe(hints[key])}"
                else:
                    setattr(getattr(recipe, name), key, value)
