"""The bases of a chain, from their authors' files to transformers' folders: LLaVA, LLaVA as deltas, SAM."""

from collections.abc import Callable
from pathlib import Path

import torch
from transformers import CLIPImageProcessorPil, SamImageProcessorPil

from cores.checkpoints.configs import read_json, refuse_fields
from cores.checkpoints.published.conversion import (
    EMBEDDINGS,
    Converted,
    check_kind,
    name_of,
    open_tensors,
    open_tower,
    progress,
)
from cores.checkpoints.published.convert_config import llava_config, sam_config
from cores.checkpoints.published.convert_model import TOWER_PREFIX, clip_source
from cores.checkpoints.published.convert_tokens import MODEL, read_base_tokenizer
from cores.checkpoints.published.deltas import Summed
from cores.checkpoints.published.keys import CLIP, LLAVA, SAM, inside
from cores.checkpoints.published.plan import Plan, Source, make_plan
from cores.checkpoints.shapes import SECOND_NAMES
from cores.checkpoints.tensors.lazy import open_shards
from cores.errors import CheckpointError
from cores.hub import fetch
from cores.modeling.mllms.llava import LlavaMLLM
from cores.modeling.segmenters.sam import SamSegmenter
from cores.whole import whole_folder

SAME = {second.removeprefix("segmenter."): first.removeprefix("segmenter.") for second, first in SECOND_NAMES.items()}
Told = Callable[[Plan], None]


def convert_llava(
    src: str | Path,
    clip: str | Path,
    folder: str | Path,
    *,
    base: str | Path | None = None,
    dtype: torch.dtype | None = None,
    replace: bool = False,
    quiet: bool = True,
    told: Told = lambda plan: None,
) -> Converted:
    """Write a LLaVA v1 or v1.5 of its authors as a folder that recipes take as `model.mllm`.

    Args: as `convert`'s; `base`: the LLaMA that `src` holds the differences to, None when it is whole.
    Raises CheckpointError that lists all that does not fit; UserError when `folder` is there (without `replace`).
    """
    source = fetch(src)
    tensors = open_tensors(source)
    if base is not None:
        tensors = Summed(open_shards(fetch(base)), tensors)
    about = source if source.is_dir() else source.parent
    published = read_json(about / "config.json", "the config of a LLaVA")
    check_kind(about, published)
    refuse_fields(about / "config.json", published, len(tensors))
    tower = open_tower(fetch(clip))
    shapes = {name: entry.shape for name, entry in tensors.items()}
    if EMBEDDINGS not in shapes:
        raise CheckpointError(f"{src}: holds no {EMBEDDINGS}: these are no weights of a LLaVA")
    tokenizer = read_base_tokenizer(about, tensors.tensor(EMBEDDINGS))
    config = llava_config(src, published, shapes, tower.config)
    config.dtype, config.architectures = dtype or tensors[EMBEDDINGS].dtype, ["LlavaForConditionalGeneration"]
    with torch.device("meta"):
        expected = {name: tuple(value.shape) for name, value in LlavaMLLM(config).state_dict().items()}
    own = any(name.startswith(TOWER_PREFIX) for name in shapes)
    table = (*LLAVA, *inside(CLIP, TOWER_PREFIX, "model.vision_tower."))
    sources = [Source(name_of(src), tensors, table), clip_source(tower, "model.vision_tower.", own)]
    plan = make_plan(src, sources, expected)
    told(plan)
    with whole_folder(Path(folder), replace) as part:
        with progress(len(plan.places), quiet) as seen:
            plan.write(part, dtype, seen)
        config.save_pretrained(part)
        tokenizer.save_pretrained(part)
        (part / MODEL).write_bytes((about / MODEL).read_bytes())
        side = tower.config.image_size
        CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side}).save_pretrained(
            part
        )
    return Converted(Path(folder), plan, config)


def convert_sam(
    src: str | Path,
    folder: str | Path,
    *,
    dtype: torch.dtype | None = None,
    replace: bool = False,
    quiet: bool = True,
    told: Told = lambda plan: None,
) -> Converted:
    """Write a `sam_vit_{b,l,h}_*.pth` as a folder that recipes take as `model.segmenter`. Sizes are read off it.

    Raises CheckpointError that lists all that does not fit; UserError when `folder` is there (without `replace`).
    """
    tensors = open_shards(fetch(src))
    config = sam_config({name: entry.shape for name, entry in tensors.items()}, src)
    config.dtype = dtype or next(iter(tensors.values())).dtype
    config.architectures = ["SamModel"]
    with torch.device("meta"):
        expected = {name: tuple(value.shape) for name, value in SamSegmenter(config).state_dict().items()}
    plan = make_plan(src, [Source(name_of(src), tensors, SAM)], expected, SAME)
    told(plan)
    with whole_folder(Path(folder), replace) as part:
        with progress(len(plan.places), quiet) as seen:
            plan.write(part, dtype, seen)
        config.save_pretrained(part)
        SamImageProcessorPil(size={"longest_edge": config.vision_config.image_size}).save_pretrained(part)
    return Converted(Path(folder), plan, config)
