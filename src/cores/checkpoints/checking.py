"""Can a folder be used, and what is it? Answered from names, shapes and ids alone: no tensor is read."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cores.checkpoint_errors import checkpoint_errors
from cores.checkpoints.configs import CONFIG
from cores.checkpoints.find import find, is_checkpoint
from cores.checkpoints.load import check_plain, read_config
from cores.checkpoints.runs.adapter_config import read_adapter_config
from cores.checkpoints.runs.bases import folders_of
from cores.checkpoints.runs.learned import ADAPTER, ADAPTER_CONFIG, PEFT_PREFIX, TRAINED
from cores.checkpoints.runs.origin import Base
from cores.checkpoints.shapes import second_names, shapes_of
from cores.checkpoints.tensors.digests import read_digests, stored_faults
from cores.checkpoints.tensors.lazy import Entry, open_shards, wrong_types
from cores.errors import CheckpointError
from cores.modeling.configuration import CoresConfig
from cores.modeling.mllms import FAMILIES
from cores.modeling.segmenters.base import image_size
from cores.modeling.strict import refuse
from cores.processing.language_pixels import language_sizes
from cores.processing.processor import CoresProcessor

NEW_STD = 0.02  # of rows of new tokens before training
CLOSE, SAME = 3.0, 0.99  # standard errors of a drawn row's spread; cosine to the mean of all rows


@dataclass(frozen=True)
class Facts:
    """What a folder is. `kind`: in words; `dtypes`: how many numbers of each; `warnings`: what looks odd."""

    folder: Path
    kind: str
    config: CoresConfig
    processor: CoresProcessor
    parameters: int
    dtypes: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def check_static(path: str | Path | None) -> Facts:
    """Hold a model folder's or checkpoint's tensors, config, tokenizer and processor to each other.

    Takes less than a second and reads no weights: `eval` and `predict` run it first.
    Raises CheckpointError with all that does not fit.
    """
    folder = find(path)
    checkpoint = is_checkpoint(folder)
    if not checkpoint:
        check_plain(folder)
    config = read_config(folder)
    expected, twice = shapes_of(config, folder / CONFIG), second_names(config)
    if checkpoint:
        entries, kind = _check_learned(folder, expected), _check_base(folder)
    else:
        kind = "a model folder"
        entries = dict(open_shards(folder))
        wrong = [(n, e.shape, expected[n]) for n, e in entries.items() if n in expected and e.shape != expected[n]]
        missing = expected.keys() - entries.keys() - twice.keys()
        refuse(folder, missing, entries.keys() - expected.keys(), wrong, wrong_types(entries))
    processor = CoresProcessor.from_pretrained(folder)
    _check_processor(folder, config, processor, expected)
    sizes: dict[str, int] = {}
    for entry in entries.values():
        name = str(entry.dtype).removeprefix("torch.")
        sizes[name] = sizes.get(name, 0) + torch.Size(entry.shape).numel()
    parameters = sum(torch.Size(shape).numel() for name, shape in expected.items() if name not in twice)
    odd = [] if config.style == processor.prompt.style else [
        f"the model's style is {config.style}, its prompts are of style {processor.prompt.style}"
    ]  # fmt: skip
    return Facts(folder, kind, config, processor, parameters, sizes, odd)


def check_weights(folder: Path) -> str:
    """Read every tensor of a model folder once, and hold it to what was saved; gives that in words.

    Raises CheckpointError that names every tensor with NaN, zeros alone, or other numbers than were saved. A run's
    checkpoint is held to its base by fingerprints, when it is loaded.
    """
    if is_checkpoint(folder):
        refuse(folder / TRAINED, unusable=stored_faults(open_shards(folder / TRAINED), None))
        return "learned on a base that has not changed"
    saved = read_digests(folder)
    refuse(folder, unusable=stored_faults(open_shards(folder), saved))
    return "not known: there is no digests.json" if saved is None else "every tensor as it was saved"


def _check_processor(
    folder: Path, config: CoresConfig, processor: CoresProcessor, shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Raise CheckpointError that names every id and size on which model and processor do not agree."""
    mllm: Any = config.mllm_config
    segmenter: Any = config.segmenter_config
    with checkpoint_errors(folder / CONFIG, "be used", "take the config of its own weights"):
        seen = language_sizes(mllm)
    levels = [(level["name"], level["token"]) for level in config.levels or []]
    told = list(zip(processor.prompt.level_names, processor.prompt.level_tokens, strict=True))
    pairs = {
        "levels": (levels, told),
        "ids of the levels' tokens": (config.token_ids, processor.token_ids),
        **{name: (value, getattr(processor.sizes, name)) for name, value in seen.items()},
        "segmenter": (segmenter.model_type, processor.sizes.segmenter),
        "segmenter_image_size": (image_size(segmenter), processor.sizes.segmenter_image_size),
    }
    wrong = [
        f"{name}: config.json says {one}, the processor {two}" for name, (one, two) in pairs.items() if one != two
    ]
    rows = shapes[f"mllm.{FAMILIES[mllm.model_type].decoder}.embed_tokens.weight"][0]
    beyond = [t for t, n in processor.tokenizer.get_vocab().items() if n >= rows and n != mllm.image_token_id]
    if beyond:
        wrong.append(f"tokenizer: {', '.join(sorted(beyond)[:6])} have no row in the embedding table of {rows}")
    if wrong:
        raise CheckpointError(
            f"{folder}: model and processor do not fit each other; take the files that were saved together:\n  "
            + "\n  ".join(wrong)
        )


def _check_learned(folder: Path, expected: Mapping[str, tuple[int, ...]]) -> dict[str, Entry]:
    """A checkpoint's own tensors, all of which must be parts of the model. Raises CheckpointError."""
    entries = dict(open_shards(folder / TRAINED))
    unexpected = [name for name in entries if name not in expected]
    wrong = [(n, e.shape, expected[n]) for n, e in entries.items() if n in expected and e.shape != expected[n]]
    if (folder / ADAPTER).exists():
        targets = read_adapter_config(folder).target_modules
        adapted: set[str] = set()
        for key, entry in open_shards(folder / ADAPTER).items():
            layer, _, part = key.removeprefix(PEFT_PREFIX).rpartition(".lora_")
            weight = expected.get(f"{layer}.weight")
            if weight is None or part not in ("A.weight", "B.weight"):
                unexpected.append(key)
            elif entry.shape["A" in part] != weight["A" in part]:
                wrong.append((key, entry.shape, weight))
            entries[key] = entry
            adapted.add(layer)
        _check_targets(folder, targets, adapted, expected)
    refuse(folder, [], unexpected, wrong, wrong_types(entries))
    return entries


def _check_targets(folder: Path, targets: Any, adapted: set[str], expected: Iterable[str]) -> None:
    """Raise CheckpointError unless the layers that an adapter's config means are those that it has matrices for."""
    layers = [name.removesuffix(".weight") for name in expected if name.endswith(".weight")]
    with checkpoint_errors(folder / ADAPTER_CONFIG, "be read: target_modules is no pattern"):
        if isinstance(targets, str):
            meant = {layer for layer in layers if re.fullmatch(targets, layer)}
        else:
            meant = {layer for layer in layers for name in targets if f".{layer}".endswith(f".{name}")}
    if meant != adapted:
        raise CheckpointError(
            f"{folder / ADAPTER_CONFIG}: target_modules means {len(meant)} layers, the adapter is of {len(adapted)}: "
            "take the two files that were saved together"
        )


def _check_base(folder: Path) -> str:
    """What a checkpoint stands on, in words. Raises CheckpointError when that is not there any more."""
    base = Base.load(folder)
    if "start" in base.paths:
        find(base.paths["start"])
    elif base.paths.get("bases") != "shipped":
        folders_of(base)
    return f"a run's checkpoint on {' and '.join(base.paths.values())}"


def untrained_rows(table: Tensor, ids: Mapping[str, int]) -> dict[str, str]:
    """Which tokens' rows (of an embedding or a head, (rows, width)) look as before any training, and why."""
    table = table.detach().float()
    mean, width = table.mean(0), table.shape[1]
    found = {}
    for token, number in ids.items():
        row = table[number]
        spread = float(row.std())
        if spread == 0:
            found[token] = "all its numbers are the same"
        elif (
            abs(spread / NEW_STD - 1) < CLOSE / (2 * width) ** 0.5
            and abs(float(row.mean())) < CLOSE * NEW_STD / width**0.5
        ):
            found[token] = f"it is spread as new rows are drawn ({spread:.4f})"
        elif float(torch.cosine_similarity(row, mean, dim=0)) > SAME:
            found[token] = "it is the mean of all rows"
        elif any(other != number and torch.equal(row, table[other]) for other in ids.values()):
            found[token] = "it is another grounding token's row"
    return found
