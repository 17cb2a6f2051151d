"""What a recipe starts from: its base described, the model built on it, and the processor that goes with it."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from cores.checkpoint_errors import checkpoint_errors
from cores.checkpoints.configs import read_mllm, read_segmenter
from cores.checkpoints.find import find, shipped
from cores.checkpoints.load import build, build_empty, read_config
from cores.checkpoints.runs.bases import folders_of, weights_of
from cores.checkpoints.runs.origin import Base
from cores.errors import RecipeError
from cores.loss_keys import LOSS_KEYS
from cores.modeling.configuration import CoresConfig
from cores.modeling.model import CoresModel
from cores.modeling.quantizing import quantise
from cores.modeling.segmenters.base import image_size
from cores.processing.chat_formats import take_chat_template
from cores.processing.language_pixels import SQUARES, language_sizes, load_image_processor
from cores.processing.processor import CoresProcessor
from cores.processing.stored import ProcessorSizes
from cores.processing.tokens import add_tokens, find_ids
from cores.prompts import PromptSettings
from cores.prompts.settings import PromptSection
from cores.prompts.styles import STYLES
from cores.prompts.wording import CHAT
from cores.recipe import OF_BASES, LossSection, Recipe
from cores.vocabulary import LEVEL_NAMES

LOSS_FIELDS = {key.recipe: key.config for key in LOSS_KEYS}


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a recipe starts from, before any weight is read. `base`: without fingerprints."""

    base: Base
    config: CoresConfig
    processor: CoresProcessor


def start(recipe: Recipe, seed: int, empty: bool = False) -> tuple[Base, CoresModel, CoresProcessor]:
    """The run's base, its model before any training, and its processor; the same from the same recipe and seed.

    `empty`: weights are not read, nor their fingerprints; the model is on the meta device.
    Raises CheckpointError when the base cannot be used, RecipeError when the recipe does not fit it.
    """
    planned = plan(recipe, seed)
    base, model = _built(recipe, planned.base, planned.config, empty)
    model.masks_per_pass, model.checkpoint_decoder = recipe.model.masks_per_pass, recipe.model.checkpoint_decoder
    if recipe.model.compile_decoder:
        model.segmenter.mask_decoder.compile()
    if recipe.model.quantize:
        quantise(model)
    return base, model, planned.processor


def plan(recipe: Recipe, seed: int) -> Plan:
    """The same without the model: configs and tokenizers are read, and no weights. Raises as `start` does."""
    paths = {
        name: _lasting(path)
        for name in ("start", "bases", "mllm", "segmenter")
        if (path := getattr(recipe.model, name))
    }
    base = Base(paths, seed, dtype=recipe.model.dtype)
    return _from_checkpoint(recipe, base) if "start" in paths else _from_bases(recipe, base)


def _from_checkpoint(recipe: Recipe, base: Base) -> Plan:
    folder = find(base.paths["start"])
    config, processor = read_config(folder), CoresProcessor.from_pretrained(folder)
    found = {"levels": len(config.levels or ()), "refiner": config.refiner, "style": config.style}
    found["segmenting"] = config.segmenting
    for name, value in found.items():
        wanted = getattr(recipe.model, name)
        if wanted not in (None, value):
            raise RecipeError(
                f"model.{name}: found {wanted}, but {folder} has {value}: leave it out, or start from bases"
            )
    for name, value in _said(recipe.losses, LOSS_FIELDS).items():
        setattr(config, name, value)
    processor.prompt = dataclasses.replace(processor.prompt, **_said_for(PromptSettings, recipe.prompt))
    processor.sizes = dataclasses.replace(processor.sizes, **_said_for(ProcessorSizes, recipe.prompt))
    return Plan(base, config, processor)


def _from_bases(recipe: Recipe, base: Base) -> Plan:
    chain = {name: getattr(recipe.model, name) or value for name, value in OF_BASES.items()}
    style, names = chain["style"], LEVEL_NAMES[chain["levels"]]
    tokens = {name: STYLES[style].tokens[name] for name in names}
    mllm, segmenter, tokenizer, images = _configs(base)
    prompt = _said_for(PromptSettings, recipe.prompt)
    if mllm.model_type not in SQUARES:  # the others are spoken to as they were taught
        prompt.setdefault("format", CHAT)
    new_tokens = _add_tokens(tokenizer, list(tokens.values()), mllm, marks=prompt.get("format") != CHAT)
    config = CoresConfig(
        mllm_config=mllm,
        segmenter_config=segmenter,
        levels=[{"name": n, "token": t, "token_id": tokenizer.convert_tokens_to_ids(t)} for n, t in tokens.items()],
        refiner=chain["refiner"],
        segmenting=chain["segmenting"],
        style=style,
        **_said(recipe.losses, LOSS_FIELDS),
    )
    sizes = ProcessorSizes(
        segmenter_image_size=image_size(segmenter),
        segmenter=segmenter.model_type,
        **language_sizes(mllm),
        **{"clip_fit": STYLES[style].clip_fit, **_said_for(ProcessorSizes, recipe.prompt)},
    )
    settings = PromptSettings(style=style, tokens=tokens, **prompt)
    processor = CoresProcessor(tokenizer, settings, sizes, images)
    return Plan(dataclasses.replace(base, new_tokens=new_tokens), config, processor)


def _built(recipe: Recipe, base: Base, config: CoresConfig, empty: bool) -> tuple[Base, CoresModel]:
    """The base with its fingerprints, and the model on it."""
    how = (_dtype(recipe), recipe.model.attn_implementation)
    if empty:
        return base, build_empty(config, *how)
    return dataclasses.replace(base, fingerprints=weights_of(base)), build(base, config, *how)


def _configs(base: Base) -> tuple[Any, PreTrainedConfig, PreTrainedTokenizerBase, Any]:
    """The configs of a base's parts, its tokenizer, and its family's image processor, if it takes one."""
    if base.paths.get("bases") == "shipped":
        folder = shipped("cores-tiny")
        config = CoresConfig.from_pretrained(folder)
        return config.mllm_config, config.segmenter_config, AutoTokenizer.from_pretrained(folder), None
    folders = folders_of(base)
    mllm, segmenter = read_mllm(folders["mllm"]), read_segmenter(folders["segmenter"])
    with checkpoint_errors(folders["mllm"], "be read as a tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(folders["mllm"])
    take_chat_template(tokenizer, folders["mllm"])
    return mllm, segmenter, tokenizer, load_image_processor(folders["mllm"], mllm)


def _add_tokens(tokenizer: PreTrainedTokenizerBase, grounding: list[str], mllm: Any, marks: bool) -> list[int]:
    """Add what the tokenizer lacks and give its ids; the multimodal LLM's config gets room for them."""
    new = find_ids(tokenizer, add_tokens(tokenizer, grounding, marks))
    size = max(mllm.text_config.vocab_size, len(tokenizer))
    rowless = mllm.model_type == "llava"  # other families' own forward looks the placeholder up
    if rowless and (mllm.image_token_id in new or mllm.image_token_id >= mllm.text_config.vocab_size):
        mllm.image_token_id = size  # a placeholder without a row: out of the way of the new tokens
    mllm.text_config.vocab_size = size
    if getattr(mllm.text_config, "vocab_size_per_layer_input", size) < size:  # Gemma's layers have embeddings, too
        mllm.text_config.vocab_size_per_layer_input = size
    return new


def _said(section: LossSection | PromptSection, names: dict[str, str]) -> dict[str, Any]:
    """What a section says, under other names; None says nothing."""
    return {new: value for old, new in names.items() if (value := getattr(section, old)) is not None}


def _said_for(kind: type[PromptSettings] | type[ProcessorSizes], prompt: PromptSection) -> dict[str, Any]:
    """What a recipe's prompt section says of the fields that this class has, too."""
    shared = {field.name for field in dataclasses.fields(kind)} & vars(prompt).keys()
    return _said(prompt, {name: name for name in shared})


def _dtype(recipe: Recipe) -> torch.dtype:
    return torch.bfloat16 if recipe.model.dtype == "bfloat16" else torch.float32


def _lasting(path: str) -> str:
    """A folder's full path, of a run the checkpoint's; hub ids and `shipped` as they are."""
    if path == "shipped" or not Path(path).exists():
        return path
    return str(find(path).resolve())
