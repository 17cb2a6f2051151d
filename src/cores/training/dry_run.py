"""What a run would be, without training: parts, memory, steps, optimiser and the first batch. No weight is read."""

import dataclasses
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, get_args

from PIL import Image
from transformers import Trainer, TrainingArguments

from cores.data.inspect.sheet import as_picture, panel
from cores.errors import DataError
from cores.modeling.model import CoresModel
from cores.processing.pixels import open_picture
from cores.processing.processor import CoresProcessor
from cores.recipe import Part, Recipe
from cores.training.drawing import Collate, Drawn, Draws, OpenSource, draws_of
from cores.training.memory import GB, training_memory
from cores.training.outline import Outline, outline
from cores.training.progress import contents
from cores.training.resuming import planned_steps
from cores.training.trainable import parts_of
from cores.vocabulary import PADDING, UNSUPERVISED

SHARDED = ("deepspeed", "fsdp")  # what shares a run's memory out over its GPUs
MANY = 8  # GPUs, for which the memory of a shared run is said, too
UNREAD = "read by no loss"


class DryRun(NamedTuple):
    """`lines`: the report; `batch`: the first batch, its pictures in words, and `picture`, a sheet of them.

    Where the batch cannot be made, `lines` say why.
    """

    lines: list[str]
    batch: list[str]
    picture: Image.Image | None


def dry_run(recipe: Recipe, open_source: OpenSource) -> DryRun:
    """Everything that can be said of a run before it.

    Raises CheckpointError when the model's configs cannot be had, RecipeError when the recipe does not fit them.
    Data that are not here are said in a line.
    """
    trainer = defaults() | recipe.trainer
    step = (
        trainer["per_device_train_batch_size"]
        * trainer["gradient_accumulation_steps"]
        * int(os.environ.get("WORLD_SIZE", "1"))
    )
    seed = trainer["seed"] if trainer["data_seed"] is None else trainer["data_seed"]
    found = outline(recipe, trainer["seed"])
    try:
        draws, absent = draws_of(recipe, open_source, seed, step), None
    except DataError as error:
        draws, absent = None, f"data: {error}"
    lines = [
        *_model(recipe, found),
        *_parts(found.model),
        *_memory(recipe, found),
        *_length(recipe, trainer, draws, step),
        *_optimiser(trainer, found.model),
        *([absent] if draws is None else _data(draws)),
    ]
    if draws is None or found.processor is None:
        why = "the data are not here" if draws is None else "there is no tokenizer here"
        return DryRun([*lines, f"first batch: {why}"], [], None)
    asked = [draws[0, index] for index in range(trainer["per_device_train_batch_size"])]
    batch: dict[Any, Any] = {**Collate(found.processor, draws.mixture.seed)(asked)}
    drawn = [one for one in asked if not isinstance(one, DataError)]
    if "error" in batch:
        return DryRun([*lines, f"first batch: {batch['error']}"], [], None)
    return DryRun(lines, list(_rows(found.processor, drawn, batch)), _picture(found.processor, drawn, batch))


def defaults() -> dict[str, Any]:
    """transformers' own values of a recipe's `trainer`."""
    fields = {field.name: field for field in dataclasses.fields(TrainingArguments)}
    return {
        name: getattr(field.default, "value", field.default)
        for name, field in fields.items()
        if field.default is not dataclasses.MISSING
    }


def _model(recipe: Recipe, found: Outline) -> Iterator[str]:
    chosen, config = recipe.model, found.model.config
    base = chosen.start or chosen.bases or f"{chosen.mllm} and {chosen.segmenter}"
    names = ", ".join(level["name"] for level in config.levels)
    yield f"model: {base}, levels {names}, refiner {config.refiner}, style {config.style}"
    if found.missing:
        yield f"  sizes as published: {found.missing}"


def _parts(model: CoresModel) -> Iterator[str]:
    """What trains and what is frozen, part by part, with tensors and numbers."""
    tensors: dict[bool, Counter[str]] = defaultdict(Counter)
    sizes: dict[bool, Counter[str]] = defaultdict(Counter)
    for name, parameter in model.named_parameters():
        part = "lora" if ".lora_" in name else " + ".join(parts_of(model, name)) or UNREAD
        tensors[parameter.requires_grad][part] += 1
        sizes[parameter.requires_grad][part] += parameter.numel()
    order = [*get_args(Part), "embeddings + head", UNREAD]
    training, frozen = sizes[True].total(), sizes[False].total()
    yield f"{training:,} of {training + frozen:,} parameters train ({training / (training + frozen):.2%})"
    for trains, title in ((True, "trains"), (False, "frozen")):
        for part in sorted(sizes[trains], key=order.index):
            yield f"  {title}  {part:18} {tensors[trains][part]:6,} tensors {sizes[trains][part]:16,} parameters"


def _memory(recipe: Recipe, found: Outline) -> Iterator[str]:
    many = MANY if any(recipe.trainer.get(name) for name in SHARDED) else 1
    for gpus in sorted({1, many}):
        of = training_memory(found.model, recipe, found.positions, gpus)
        parts = ", ".join(f"{name} {value / GB:.1f}" for name, value in of.items() if value >= GB / 20)
        where = f"on each of {gpus} GPUs" if gpus > 1 else "on one device"
        whole = f"{sum(of.values()) / GB:.1f} GB {where}"
        yield f"memory, estimated for the longest rows: {whole}{parts and f' ({parts})'}"


def _length(recipe: Recipe, trainer: dict[str, Any], draws: Draws | None, step: int) -> Iterator[str]:
    per_epoch = math.ceil(len(draws) / step) if draws is not None else recipe.data.steps_per_epoch
    size = f"{step} pictures a step"
    if per_epoch is None:
        known = trainer["max_steps"] > 0
        yield f"steps: {trainer['max_steps']:,}, {size}" if known else f"steps: the data say how many; {size}"
        return
    steps = planned_steps(recipe.trainer, per_epoch)
    yield f"steps: {steps:,} ({steps / per_epoch:.3g} epochs of {per_epoch:,}), {size}"


def _optimiser(trainer: dict[str, Any], model: CoresModel) -> Iterator[str]:
    """The optimiser with its groups, which are the Trainer's own."""
    warmup, schedule = trainer["warmup_steps"], trainer["lr_scheduler_type"]
    yield (
        f"optimiser: {trainer['optim']}, rate {trainer['learning_rate']:g} ({schedule}, warm-up {warmup:g}), betas "
        f"{trainer['adam_beta1']:g} and {trainer['adam_beta2']:g}, gradients up to {trainer['max_grad_norm']:g}"
    )
    for (decays, names), decay in zip(groups(model).items(), (trainer["weight_decay"], 0.0), strict=True):
        numbers = sum(model.get_parameter(name).numel() for name in names)
        what = "weights" if decays else "biases and norms"
        yield f"  {what}: weight decay {decay:g}, {len(names):,} tensors, {numbers:,} parameters"


def groups(model: CoresModel) -> dict[bool, list[str]]:
    """Names of what trains, by whether weight decay is for it."""
    decaying = set(Trainer.get_decay_parameter_names(None, model))
    training = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    return {decays: [name for name in training if (name in decaying) == decays] for decays in (True, False)}


def _data(draws: Draws) -> Iterator[str]:
    mixture = draws.mixture
    for family, sources in zip(mixture.names, mixture.sources, strict=True):
        for source in sources:
            yield f"data: {family}: {source.name}: {contents(source)}"


def _rows(processor: CoresProcessor, drawn: list[Drawn], batch: Mapping[str, Any]) -> Iterator[str]:
    """The batch read back from its ids, a text a picture: what is learned stands in its own lines."""
    masks = list(zip(batch["image_index"].tolist(), batch["truth"], strict=True))
    for row, (sample, _, _) in enumerate(drawn):
        ids, labels, segments = (batch[key][row].tolist() for key in ("input_ids", "labels", "segment_ids"))
        height, width = batch["sizes"][row]
        length = sum(segment != PADDING for segment in segments)
        lines = [f"picture {row + 1}: {sample.name}, {width} x {height} pixels, {length} positions"]
        targets = iter([truth for image, truth in masks if image == row])
        for number in range(max(segments) + 1):
            inside = [place for place, segment in enumerate(segments) if segment == number]
            lines.append(f"  conversation {number}:" if number else "  before all questions:")
            for learned, run in _runs(inside, labels):
                words = _words(processor, [ids[place] for place in run])
                lines.append(f"    {'learned' if learned else 'given  '} | {words}")
            for _ in range(sum(labels[place] == processor.token_ids[-1] for place in inside)):
                lines.append(f"    mask    | {next(targets).float().mean().item():.2%} of the picture")
        yield "\n".join(lines)


def _runs(places: list[int], labels: list[int]) -> Iterator[tuple[bool, list[int]]]:
    """Places cut wherever being learned begins or ends."""
    run: list[int] = []
    for place in places:
        if run and (labels[place] == UNSUPERVISED) != (labels[run[-1]] == UNSUPERVISED):
            yield labels[run[-1]] != UNSUPERVISED, run
            run = []
        run.append(place)
    if run:
        yield labels[run[-1]] != UNSUPERVISED, run


def _words(processor: CoresProcessor, ids: list[int]) -> str:
    """Ids as text in one line, with a picture's places counted."""
    found, rest = "", list(ids)
    image = processor.sizes.image_token_id
    while rest:
        places = next((n for n, one in enumerate(rest) if one != image), len(rest))
        if places:
            found += f"<{places} places of the picture>"
        words = next((n for n, one in enumerate(rest[places:]) if one == image), len(rest) - places)
        found += processor.tokenizer.decode(rest[places : places + words])
        rest = rest[places + words :]
    return found.replace("\n", "\\n")


def _picture(processor: CoresProcessor, drawn: list[Drawn], batch: Mapping[str, Any]) -> Image.Image:
    side = processor.sizes.segmenter_image_size
    panels = [
        panel(sample, open_picture(sample.image), side, size)
        for (sample, _, _), size in zip(drawn, batch["resized"], strict=True)
    ]
    return as_picture(panels)
