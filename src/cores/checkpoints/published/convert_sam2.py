"""SAM 2 and 2.1 from their authors' files to a folder in transformers' format; what is about videos is left out."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import Sam2Config, Sam2HieraDetConfig, Sam2VisionConfig

from cores.checkpoints.published.conversion import Converted, name_of, progress
from cores.checkpoints.published.convert_bases import Told
from cores.checkpoints.published.keys import SAM2
from cores.checkpoints.published.plan import Source, make_plan
from cores.checkpoints.tensors.lazy import Entry, Tensors, open_shards
from cores.errors import CheckpointError
from cores.hub import fetch
from cores.modeling.segmenters.sam2 import Sam2Segmenter
from cores.whole import whole_folder

TRUNK = "image_encoder.trunk."
POINTS = "sam_prompt_encoder.point_embeddings."
GAUSSIAN, FOR_IMAGES = (
    f"sam_prompt_encoder.pe_layer.{name}" for name in ("positional_encoding_gaussian_matrix", "for_images")
)


class Hiera(NamedTuple):
    """What tensors do not tell of SAM 2's image encoder: heads of the first stage, and who sees how far."""

    heads: int
    global_blocks: tuple[int, ...]
    windows: tuple[int, ...] = (8, 4, 14, 7)


# by width of the first stage and blocks of each: the published sizes
SIZES: dict[tuple[int, tuple[int, ...]], Hiera] = {
    (96, (1, 2, 7, 2)): Hiera(1, (5, 7, 9)),
    (96, (1, 2, 11, 2)): Hiera(1, (7, 10, 13)),
    (112, (2, 3, 16, 3)): Hiera(2, (12, 16, 20)),
    (144, (2, 6, 36, 4)): Hiera(2, (23, 33, 43), (8, 4, 16, 8)),
}


class Gathered(Tensors):
    """SAM 2's tensors, one table of point embeddings made of its four, and the Gaussian matrix in both its places."""

    def __init__(self, tensors: Tensors) -> None:
        self.tensors = tensors
        self.points = sorted(name for name in tensors if re.fullmatch(rf"{re.escape(POINTS)}\d+\.weight", name))
        self.entries = {name: entry for name, entry in tensors.items() if name not in self.points}
        if self.points:
            _, width = tensors[self.points[0]].shape
            shape, dtype = (len(self.points), width), tensors[self.points[0]].dtype
            self.entries[f"{POINTS}weight"] = Entry(shape, dtype, tuple(self.points), "one under the other")
        if GAUSSIAN in tensors:
            self.entries[FOR_IMAGES] = tensors[GAUSSIAN]._replace(how="written twice")

    def tensor(self, key: str) -> Tensor:
        if key == f"{POINTS}weight":
            return torch.cat([self.tensors.tensor(name) for name in self.points])
        return self.tensors.tensor(GAUSSIAN if key == FOR_IMAGES else key)


def convert_sam2(
    src: str | Path,
    folder: str | Path,
    *,
    dtype: torch.dtype | None = None,
    replace: bool = False,
    quiet: bool = True,
    told: Told = lambda plan: None,
) -> Converted:
    """Write a `sam2_hiera_*.pt` or `sam2.1_hiera_*.pt` as a folder that recipes take as `model.segmenter`.

    Raises CheckpointError that lists all that does not fit.
    """
    tensors = Gathered(open_shards(fetch(src)))
    config = sam2_config({name: entry.shape for name, entry in tensors.items()}, src)
    config.dtype = dtype or next(iter(tensors.values())).dtype
    config.architectures = ["Sam2Model"]
    with torch.device("meta"):
        expected = {name: tuple(value.shape) for name, value in Sam2Segmenter(config).state_dict().items()}
    plan = make_plan(src, [Source(name_of(src), tensors, SAM2)], expected)
    told(plan)
    with whole_folder(Path(folder), replace) as part:
        with progress(len(plan.places), quiet) as seen:
            plan.write(part, dtype, seen)
        config.save_pretrained(part)
    return Converted(Path(folder), plan, config)


def sam2_config(shapes: Mapping[str, tuple[int, ...]], where: object) -> Sam2Config:
    """A SAM 2 by its tensors' shapes under its own names. Everything but the trunk is the same in all of them.

    Raises CheckpointError when it is of none of the published sizes.
    """
    if any(name.startswith("vision_encoder.") for name in shapes):
        raise CheckpointError(f"{where}: is in transformers' own format: recipes take it as model.segmenter as it is")
    width = shapes.get(f"{TRUNK}pos_embed", (0, 0))[1]
    blocks = [
        int(match[1]) for name in shapes if (match := re.fullmatch(rf"{TRUNK}blocks\.(\d+)\.norm1\.weight", name))
    ]
    # a stage begins with a block that has a projection to its width
    begins = [0, *sorted(n for n in blocks if f"{TRUNK}blocks.{n}.proj.weight" in shapes), len(blocks)]
    stages = tuple(later - first for first, later in zip(begins, begins[1:], strict=False))
    if (width, stages) not in SIZES:
        raise CheckpointError(
            f"{where}: its image encoder has blocks {list(stages)} of width {width}, which is none of SAM 2's tiny, "
            "small, base_plus and large"
        )
    hiera, widths = SIZES[width, stages], [width * 2**stage for stage in range(len(stages))]
    trunk = Sam2HieraDetConfig(
        hidden_size=width,
        num_attention_heads=hiera.heads,
        blocks_per_stage=list(stages),
        embed_dim_per_stage=widths,
        num_attention_heads_per_stage=[hiera.heads * 2**stage for stage in range(len(stages))],
        window_size_per_stage=list(hiera.windows),
        global_attention_blocks=list(hiera.global_blocks),
        window_positional_embedding_background_size=list(shapes[f"{TRUNK}pos_embed"][2:]),
    )
    return Sam2Config(vision_config=Sam2VisionConfig(backbone_config=trunk, backbone_channel_list=widths[::-1]))
