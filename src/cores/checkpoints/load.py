"""A model and its processor from a folder: plain, or a run's checkpoint on its base. Strict: whole or not at all."""

from pathlib import Path
from typing import Any

import torch

from cores.checkpoint_errors import checkpoint_errors
from cores.checkpoints.configs import (
    CONFIG,
    check_mllm,
    check_segmenter,
    make_config,
    read_json,
    refuse_fields,
    tensors_in,
)
from cores.checkpoints.find import find, is_checkpoint, shipped
from cores.checkpoints.library_errors import only_errors, quietly
from cores.checkpoints.published.recognising import way_in
from cores.checkpoints.runs.bases import draw_rows, folders_of, load_parts, weights_of
from cores.checkpoints.runs.learned import ADAPTER, TRAINED, fold_lora, read_learned
from cores.checkpoints.runs.origin import Base
from cores.checkpoints.shapes import refuse_larger, shapes_of
from cores.checkpoints.tensors.lazy import open_shards, wrong_types
from cores.errors import CheckpointError, UserError
from cores.loss_keys import LOSS_KEYS
from cores.modeling.configuration import CoresConfig
from cores.modeling.model import CoresModel
from cores.modeling.quantizing import Bits, quantise, refuse_bits
from cores.modeling.strict import refuse
from cores.processing.processor import CoresProcessor


def load(
    path: str | Path | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    attn_implementation: str | None = None,
    quantize: Bits | None = None,
) -> tuple[CoresModel, CoresProcessor]:
    """A model in eval mode and its processor. What a run learned is folded into the weights.

    Args:
        path: a model folder, a run folder (its best checkpoint), one of its checkpoints, a published CoReS or LISA, or
            a hub id; None: the model that comes with cores.
        device: see `as_device`.
        dtype: of the weights, such as "bfloat16"; None and "auto" keep the stored one, but take float32 on a CPU.
        quantize: the language model's layers in 8 or 4 bits, on CUDA.

    Raises CheckpointError that names what is missing, left over, of another shape, or changed since the run began,
    and for a dtype that no weights have; UserError for a device that is not there, or that few bits cannot be had on.
    """
    device = as_device(device)
    refuse_bits(quantize, device)
    folder = find(path)
    model = load_model(folder, as_dtype(dtype, device), attn_implementation)
    fold_lora(model)
    if quantize is not None:
        quantise(model, quantize)
    processor = CoresProcessor.from_pretrained(folder)
    return model.to(device).eval(), processor


def load_model(folder: Path, dtype: torch.dtype | None, attn_implementation: str | None = None) -> CoresModel:
    """The model of a model folder or checkpoint, on the CPU; a checkpoint's LoRA layers stay as they are.

    Raises CheckpointError as `load`.
    """
    if not is_checkpoint(folder):
        check_plain(folder)
        refuse(folder, unusable=wrong_types(open_shards(folder)))
        config = read_config(folder)
        refuse_larger(CoresModel, config, folder)
        with quietly(), checkpoint_errors(folder):
            whole = CoresModel.from_pretrained(folder, dtype=dtype or "auto", config=config)
        return use_attention(whole, attn_implementation)
    base = Base.load(folder)
    base.check(weights_of(base))
    config = read_config(folder)
    shapes_of(config, folder / CONFIG)  # a config of no model is said here, by the name of its file
    model = build(base, config, dtype, attn_implementation)
    read_learned(model, folder)
    return model


def build(
    base: Base, config: CoresConfig, dtype: torch.dtype | None, attn_implementation: str | None = None
) -> CoresModel:
    """A run's model before it learned anything; the same from the same base, whenever it is built.

    `dtype` None: the base's own. Frozen weights are first rounded to what they were in training (`Base.dtype`): what
    was learned fits that rounding. Raises CheckpointError when the base does not fit the config.
    """
    trained = None if base.dtype is None else as_dtype(base.dtype, torch.device("cpu"))
    if "start" in base.paths:
        model = load_model(find(base.paths["start"]), trained or dtype, attn_implementation)
        fold_lora(model)
        adopt(model.config, config)
        return cast(model, dtype or trained)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(base.seed)
        parts = load_parts(base, dtype=trained or dtype or "auto")
        wanted: Any = config.mllm_config
        draw_rows(parts.mllm, wanted.text_config.vocab_size, base.new_tokens)
        model = CoresModel.from_bases(config, parts.mllm, parts.segmenter)
    if parts.projection is not None:
        model.projection.load_state_dict(parts.projection)
    use_attention(model, attn_implementation)
    return cast(cast(model, trained or dtype or parts.mllm.dtype), dtype or trained)


def build_empty(config: CoresConfig, dtype: torch.dtype, attn_implementation: str | None = None) -> CoresModel:
    """A model as `build` makes it, without weights (on the meta device): another process sends them.

    Raises CheckpointError when a part cannot use the attention.
    """
    with quietly(), torch.device("meta"):
        model = CoresModel(config)
    model.mllm.tie_weights()
    model.segmenter.tie_weights()
    return cast(use_attention(model, attn_implementation), dtype)


def use_attention(model: CoresModel, name: str | None) -> CoresModel:
    """Set the attention of all parts, None: leave it. FlexAttention is the language model's alone: no tower takes it.

    Raises CheckpointError when a part cannot use it.
    """
    if name is None:
        return model
    try:
        with only_errors():  # it warns of parts without attention, such as SAM's prompt encoder
            if name == "flex_attention":
                model.mllm.set_attn_implementation({"text_config": name})
            else:
                model.set_attn_implementation(name)
    except (ValueError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"attn_implementation {name!r:.40}: cannot be used here: {reason}") from None
    return model


def cast(model: CoresModel, dtype: torch.dtype | None) -> CoresModel:
    """Give all that is saved this dtype. What is not (rotary frequencies) stays as exact as it was made."""
    for value in model.state_dict(keep_vars=True).values():
        if dtype is not None and value.is_floating_point():
            value.data = value.data.to(dtype)
    return model


def adopt(config: CoresConfig, run: CoresConfig) -> None:
    """Give a checkpoint's config what a run sets. Raises CheckpointError when it is the config of another model."""
    for name in ("levels", "refiner", "style"):
        found, wanted = getattr(config, name), getattr(run, name)
        if found != wanted:
            raise CheckpointError(f"{name}: the base has {found}, the run {wanted}: leave it, or start from bases")
    for key in LOSS_KEYS:  # all that a run may set otherwise: the rest of the config is the model itself
        setattr(config, key.config, getattr(run, key.config))


def as_device(device: str | torch.device | None) -> torch.device:
    """A torch device that is there; None and "auto" take CUDA where there is one, else MPS, else the CPU.

    Raises UserError when it cannot be used here.
    """
    try:
        found = torch.device(_best() if device in (None, "auto") else device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:  # torch's ways of saying so
        reason = str(error).splitlines()[0]
        raise UserError(f"device {str(device)!r:.60}: cannot be used here: {reason}") from None
    return found


def _best() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def read_config(folder: Path) -> CoresConfig:
    """The config of a model folder or checkpoint of ours. Its numbers are bounded before anything is built by it.

    Raises CheckpointError that names every field which no model of ours can have.
    """
    file = folder / CONFIG
    stored = read_json(file, "a model's config")
    check_mllm(file, stored.get("mllm_config"))
    check_segmenter(file, stored.get("segmenter_config"))
    refuse_fields(file, stored, count_tensors(folder))
    config = make_config(file, CoresConfig, stored)
    for level in config.levels or []:
        number = level.get("token_id")
        if not isinstance(level.get("token"), str) or not (number is None or (type(number) is int and number >= 0)):
            raise CheckpointError(f"{file}: levels: found {level!r:.120}, expected a token and its id")
    return config


def count_tensors(folder: Path) -> int:
    """How many tensors the files of a model hold; of a checkpoint, its own and its base's.

    Raises CheckpointError when files are missing or cannot be read.
    """
    if not is_checkpoint(folder):
        return tensors_in(folder)
    paths = Base.load(folder).paths
    if "start" in paths:
        bases = [find(paths["start"])]
    else:
        bases = [shipped("cores-tiny")] if paths.get("bases") == "shipped" else [*folders_of(Base(paths)).values()]
    own = [folder / name for name in (TRAINED, ADAPTER) if (folder / name).is_file()]
    return sum(len(open_shards(file)) for file in own) + sum(map(count_tensors, bases))


def as_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype | None:
    """A torch dtype; None and "auto" are float32 on a CPU and None, the stored one, elsewhere.

    Raises CheckpointError for what is no floating dtype.
    """
    if dtype is None or dtype == "auto":
        return torch.float32 if device.type == "cpu" else None
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise CheckpointError(f"dtype: found {dtype!r}, expected float32, bfloat16 or float16")
    return found


def check_plain(folder: Path) -> None:
    """Raise CheckpointError unless the folder looks like a model of ours; transformers' own words are less clear."""
    if not (folder / CONFIG).exists():
        there = ", ".join(sorted(file.name for file in folder.iterdir())[:6]) or "nothing"
        raise CheckpointError(f"{folder}: holds no model: there is no config.json, only {there}")
    stored = read_json(folder / CONFIG, "a model's config")
    kind = stored.get("model_type")
    if kind != "cores":
        raise CheckpointError(f"{folder}: is a model of type {kind!r:.80}, not of cores: {way_in(folder, stored)}")
    if not any(file.is_file() for file in folder.glob("model*.safetensors")):  # a pipe would be waited for
        raise CheckpointError(f"{folder}: holds no weights, expected model.safetensors or its shards")
