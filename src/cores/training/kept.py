"""What frozen encoders make of pictures, where a run keeps it: which encoders, whose pictures are there, and the rest.

The segmenter's features, and what the language model's projector gives (patches). Workers read what is kept; what is
missing is encoded before a step begins, and then kept.

Legend: images = pictures of a batch, patches = positions that a picture takes, width = of the language model's states.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from transformers import TrainingArguments

from cores.data.sample import Sample
from cores.errors import RecipeError
from cores.modeling.mllms import FAMILIES
from cores.modeling.mllms.llava import PATCHES, LlavaMLLM
from cores.modeling.model import CoresModel
from cores.modeling.segmenters.base import Features
from cores.processing.pixels import open_picture
from cores.processing.processor import CoresProcessor
from cores.recipe import Encoder, Recipe
from cores.training.feature_cache import FeatureCache, picture_key

T = TypeVar("T")
Caches = Mapping[Encoder, FeatureCache]
PIXELS: dict[Encoder, str] = {"segmenter": "segmenter_pixels", "projector": "pixel_values"}  # of a batch
# What of a model changes an encoder's features, so that it may not train
BEFORE: dict[Encoder, tuple[str, ...]] = {
    "segmenter": ("image_encoder",),
    "projector": ("vision_tower", "projector"),
}


def open_caches(
    recipe: Recipe, model: CoresModel, processor: CoresProcessor, arguments: TrainingArguments
) -> dict[Encoder, FeatureCache]:
    """The caches of a recipe; none, where it names no folder. Several processes open them together.

    Only the first one's weights are read. Raises RecipeError when what would be kept trains, or when the language
    model's family takes a picture otherwise than as one tensor.
    """
    data = recipe.data
    if data.features is None:
        return {}
    for encoder in data.features_of:
        if trains := [part for part in BEFORE[encoder] if part in recipe.model.train]:
            raise RecipeError(
                f"data.features: {trains[0]} trains, so the {encoder}'s features change: take one of them out"
            )
    if "projector" in data.features_of and not isinstance(model.mllm, LlavaMLLM):
        raise RecipeError(
            f"data.features_of: projector is for llava alone; {model.config.mllm_config.model_type} is given "
            "a picture otherwise than as one tensor: leave projector out"
        )
    folder, rounded = Path(data.features).expanduser().absolute(), data.features_dtype == "bfloat16"
    own = {e: fingerprint(e, model, processor, arguments) for e in data.features_of} if _is_first() else {}
    most, writers = data.features_gb * 1e9, arguments.world_size
    return {e: FeatureCache(folder, name, rounded, most, writers) for e, name in _first_says(own).items()}


def fingerprint(encoder: Encoder, model: CoresModel, processor: CoresProcessor, arguments: TrainingArguments) -> str:
    """What features depend on beside the picture, as 32 hexadecimal digits.

    The encoder's weights, its attention, the number type that is computed in, and how pictures are prepared.
    """
    sizes = processor.sizes
    computing = torch.bfloat16 if arguments.bf16 else torch.float16 if arguments.fp16 else torch.float32
    how: tuple[Any, ...] = (str(computing), *(["rounded weights"] if arguments.deepspeed and arguments.bf16 else []))
    if encoder == "segmenter":
        part: nn.Module = model.segmenter
        after = (*model.segmenter.parts["prompt_encoder"], *model.segmenter.parts["mask_decoder"])
        names = [name for name in part.state_dict() if not name.startswith(after)]
        how = (sizes.segmenter, sizes.segmenter_image_size, *how, _attention(model.segmenter))
    else:
        part, config = model.mllm, model.mllm.config
        family = FAMILIES[config.model_type]
        before = tuple(f"{path}." for path in (family.tower, *family.projector))
        names = [name for name in part.state_dict() if name.startswith(before)]
        chosen = (config.vision_feature_layer, config.vision_feature_select_strategy)
        how = (sizes.pixel_rule, sizes.mllm_image_size, sizes.clip_fit, *chosen, *how, _attention(model.mllm))
    digest = hashlib.blake2b(repr(how).encode(), digest_size=16)
    state = part.state_dict()
    for name in sorted(names):
        value = state[name]
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_kept(samples: Sequence[Sample], caches: Caches) -> dict[Encoder, dict[str, Any]]:
    """What the caches have of these samples' pictures, by encoder, in plain types, so that any Trainer can move it.

    `rows`: the pictures that are kept, and their `features`, if there are any; `missing`: keys of the others; `order`
    (images,): where each picture stands in the kept ones and, behind them, the others.
    """
    keys = [picture_key(open_picture(sample.image)) for sample in samples] if caches else []
    found: dict[Encoder, dict[str, Any]] = {}
    for encoder, cache in caches.items():
        read = [cache.read(key) for key in keys]
        rows = [row for row, features in enumerate(read) if features is not None]
        others = [row for row, features in enumerate(read) if features is None]
        order = torch.tensor([*rows, *others]).argsort()
        found[encoder] = {"rows": rows, "missing": [keys[row] for row in others], "order": order}
        if rows:
            found[encoder]["features"] = _plain(Features.cat([one for one in read if one is not None]))
    return found


def with_kept(batch: Mapping[str, Any], kept: Mapping[Encoder, dict[str, Any]]) -> dict[str, Any]:
    """A batch with what is kept of it, for `complete`; its pixels are those of the missing pictures."""
    found = {**batch, "kept": kept}
    if part := kept.get("projector"):
        others = [row for row in range(len(batch["pixel_values"])) if row not in part["rows"]]
        found["pixel_values"] = batch["pixel_values"][others]
    return found


def is_missing(batches: Iterable[Mapping[str, Any]]) -> bool:
    """Is there a picture in these batches that has to be encoded?"""
    return any(part["missing"] for batch in batches for part in batch["kept"].values())


@torch.no_grad()
def complete(
    batch: dict[str, Any], caches: Caches, model: CoresModel, ready: Callable[[Any], Any], masks: bool
) -> None:
    """Give a batch the features of all its pictures in the place of `kept`; what is missing is encoded, and kept.

    Args: `ready`: puts tensors where the model is; `masks`: is the segmenter wanted where the batch has no masks, too?
    Raises UserError for a full disk.
    """
    for encoder, part in batch.pop("kept").items():
        if encoder == "segmenter" and not (masks or len(batch["image_index"])):
            continue
        found = [Features(**ready(part["features"]))] if "features" in part else []
        if part["missing"]:
            found.append(encode(encoder, model, ready(batch[PIXELS[encoder]])))
            caches[encoder].write(part["missing"], found[-1])
            batch[PIXELS[encoder]] = batch[PIXELS[encoder]][:0]
        whole = Features.cat(found)[ready(part["order"])]
        if encoder == "segmenter":
            batch["features"] = _plain(whole)
        else:
            batch["pixel_extras"] = {**batch["pixel_extras"], PATCHES: whole.coarse}


def encode(encoder: Encoder, model: CoresModel, pixels: Tensor) -> Features:
    """What an encoder makes of pixels (images, 3, side, side); patches (images, patches, width) are `coarse`."""
    if encoder == "segmenter":
        return model.encode(pixels)
    return Features(model.mllm.encode_images({"pixel_values": pixels}))


def _plain(features: Features) -> dict[str, Any]:
    return {"coarse": features.coarse, "fine": features.fine}


def _attention(model: Any) -> Any:
    return getattr(model.config, "_attn_implementation", None)


def _is_first() -> bool:
    return not distributed.is_initialized() or distributed.get_rank() == 0


def _first_says(said: T) -> T:
    """What the first process says, in all of them."""
    if not distributed.is_initialized():
        return said
    told = [said]
    distributed.broadcast_object_list(told, src=0)
    return told[0]
