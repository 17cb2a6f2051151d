"""Can a folder be used, and what is it? Answered from names, shapes and ids alone: no tensor is read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cores.checkpoints.find import find, is_checkpoint
from cores.checkpoints.load import check_plain
from cores.checkpoints.published.convert_model import same_in, shapes_of
from cores.checkpoints.runs.bases import folders_of
from cores.checkpoints.runs.learned import ADAPTER, PEFT_PREFIX, TRAINED
from cores.checkpoints.runs.origin import Base
from cores.checkpoints.tensors.lazy import Entry, open_shards
from cores.errors import CheckpointError
from cores.modeling.configuration import CoresConfig
from cores.modeling.strict import refuse
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
    try:
        config = CoresConfig.from_pretrained(folder)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder / 'config.json'}: cannot be read as a model's config: {error}") from None
    expected = shapes_of(config)
    second = same_in(expected)
    if checkpoint:
        entries, kind = _check_learned(folder, expected), _check_base(folder)
    else:
        kind = "a model folder"
        entries = dict(open_shards(folder))
        wrong = [(n, e.shape, expected[n]) for n, e in entries.items() if n in expected and e.shape != expected[n]]
        refuse(folder, expected.keys() - entries.keys() - second.keys(), entries.keys() - expected.keys(), wrong)
    processor = CoresProcessor.from_pretrained(folder)
    _check_processor(folder, config, processor, expected)
    sizes: dict[str, int] = {}
    for entry in entries.values():
        name = str(entry.dtype).removeprefix("torch.")
        sizes[name] = sizes.get(name, 0) + torch.Size(entry.shape).numel()
    parameters = sum(torch.Size(shape).numel() for name, shape in expected.items() if name not in second)
    odd = [] if config.style == processor.prompt.style else [
        f"the model's style is {config.style}, its prompts are of style {processor.prompt.style}"
    ]  # fmt: skip
    return Facts(folder, kind, config, processor, parameters, sizes, odd)


def _check_processor(
    folder: Path, config: CoresConfig, processor: CoresProcessor, shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Raise CheckpointError that names every id and size on which model and processor do not agree."""
    mllm: Any = config.mllm_config
    segmenter: Any = config.segmenter_config
    patches = (mllm.vision_config.image_size // mllm.vision_config.patch_size) ** 2
    tokens = patches if mllm.vision_feature_select_strategy == "default" else patches + 1
    levels = [(level["name"], level["token"]) for level in config.levels or []]
    told = list(zip(processor.prompt.level_names, processor.prompt.level_tokens, strict=True))
    pairs = {
        "levels": (levels, told),
        "ids of the levels' tokens": (config.token_ids, processor.token_ids),
        "image_token_id": (mllm.image_token_id, processor.sizes.image_token_id),
        "image_tokens": (tokens, processor.sizes.image_tokens),
        "mllm_image_size": (mllm.vision_config.image_size, processor.sizes.mllm_image_size),
        "segmenter_image_size": (segmenter.vision_config.image_size, processor.sizes.segmenter_image_size),
    }
    wrong = [
        f"{name}: config.json says {one}, the processor {two}" for name, (one, two) in pairs.items() if one != two
    ]
    rows = shapes["mllm.model.language_model.embed_tokens.weight"][0]
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
        for key, entry in open_shards(folder / ADAPTER).items():
            layer, _, part = key.removeprefix(PEFT_PREFIX).rpartition(".lora_")
            weight = expected.get(f"{layer}.weight")
            if weight is None or part not in ("A.weight", "B.weight"):
                unexpected.append(key)
            elif entry.shape["A" in part] != weight["A" in part]:
                wrong.append((key, entry.shape, weight))
            entries[key] = entry
    refuse(folder, [], unexpected, wrong)
    return entries


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
