"""What stands for a picture in each family's prompt: as many placeholders as its tower gives states, and what is laid
out around them (tile numbers, ends of rows, opening and closing tokens).

One function a kind of layout, one row a family, by the model type of the multimodal LLM's config. The counts follow
each family's own processor class in transformers, whose text is the reference; they are read from what its image
processor gave for the picture. A text made of tokens is laid out rather than ids, because a tokenizer may join the
line breaks in it.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from transformers.image_processing_utils import select_best_resolution

from cores.errors import CheckpointError

Pixels = Mapping[str, Tensor]
CAPPED = "anyres_max_"  # LLaVA-OneVision's name for "at most so many tiles' worth of states"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a layout reads beside the picture's pixels.

    `image`: the placeholder; `tile`: placeholders of one tile, 0 where no size is fixed; `processor`: the family's.
    """

    image: str
    tile: int
    processor: Any


@dataclass(frozen=True, slots=True)
class Layout:
    """A family's way with a picture.

    `text`: all of its tokens. `tile`: placeholders of one tile, by the model's config. `needs`: tokens beside the
    placeholder, which the tokenizer must hold; the one that ends the layout comes last. `written`: what a chat
    template writes for a picture, where that is not the placeholder. `around`: text before and after, which belongs
    to the prompt. `asks`: options of the image processor. `ours`: entries that it gives for the layout alone and the
    model does not take. `fit`: brings an image processor in line with the model's config. `pillow`: can it run
    without torchvision?
    """

    text: Callable[[Facts, Pixels], str]
    tile: Callable[[Any], int] = lambda config: 0
    needs: tuple[str, ...] = ()
    written: str = ""
    around: tuple[str, str] = ("", "")
    asks: Mapping[str, Any] = field(default_factory=dict)
    ours: frozenset[str] = frozenset()
    fit: Callable[[Any, Any], None] = lambda processor, config: None
    pillow: bool = True


def _patches(config: Any) -> int:
    """Patches of a square picture in the vision tower."""
    vision = config.vision_config
    side, patch = (value if isinstance(value, int) else value[0] for value in (vision.image_size, vision.patch_size))
    return (int(side) // int(patch)) ** 2


# -- kinds of layout --------------------------------------------------------------------------------------------------


def _per_grid(facts: Facts, pixels: Pixels) -> str:
    """One placeholder for each block of patches that the tower merges."""
    patches = int(pixels["image_grid_thw"][0].prod())
    return facts.image * (patches // int(facts.processor.merge_size) ** 2)


def _per_tile(facts: Facts, pixels: Pixels) -> str:
    return f"<img>{facts.image * (facts.tile * len(pixels['pixel_values']))}</img>"


def _any_resolution(facts: Facts, pixels: Pixels) -> str:
    """The small picture, then the tiles' grid without its padding, each row of it with a token that ends the line."""
    height, width = pixels["image_sizes"][0].tolist()
    side, patches = pixels["pixel_values"].shape[-1], math.isqrt(facts.tile)
    grid = select_best_resolution([height, width], facts.processor.image_grid_pinpoints)
    rows, columns = (patches * (int(length) // side) for length in grid)
    if width / height > columns / rows:
        rows -= 2 * ((rows - int(round(height * (columns / width), 7))) // 2)
    else:
        columns -= 2 * ((columns - int(round(width * (rows / height), 7))) // 2)
    most = getattr(facts.processor, "vision_aspect_ratio", "")
    if most.startswith(CAPPED):
        ratio = math.sqrt(rows * columns / (int(most.removeprefix(CAPPED)) * facts.tile))
        if ratio > 1.1:  # the tower's states are then scaled down
            rows, columns = int(rows // ratio), int(columns // ratio)
    return facts.image * (facts.tile + rows * (columns + 1))


FAKE, GLOBAL = "<fake_token_around_image>", "<global-img>"


def _rows_and_columns(facts: Facts, pixels: Pixels) -> str:
    """Each tile behind its row and column, a line a row, then the small picture."""
    tile = facts.image * facts.tile
    rows, columns = (int(pixels[name][0]) for name in ("rows", "cols"))
    lines = [
        "".join(f"{FAKE}<row_{row}_col_{column}>{tile}" for column in range(1, columns + 1)) + "\n"
        for row in range(1, rows + 1)
    ]
    before = "\n" if lines else ""
    return f"{''.join(lines)}{before}{FAKE}{GLOBAL}{tile}{FAKE}"


def _lines(facts: Facts, pixels: Pixels) -> str:
    height, width = pixels["image_sizes"][0].tolist()
    patch = facts.processor.patch_size
    patch_height, patch_width = patch["height"], patch["width"]
    line = facts.image * (width // patch_width)
    return "[IMG_BREAK]".join([line] * (height // patch_height)) + "[IMG_END]"


def _gemma_3(facts: Facts, pixels: Pixels) -> str:
    return f"<start_of_image>{facts.image * facts.tile}<end_of_image>"


def _gemma_4(facts: Facts, pixels: Pixels) -> str:
    return f"<|image>{facts.image * int(pixels['num_soft_tokens_per_image'][0])}<image|>"


def _lfm2(facts: Facts, pixels: Pixels) -> str:
    shape, factor = facts.processor, facts.processor.downsample_factor

    def states(height: int, width: int) -> int:
        sides = (math.ceil(length // shape.encoder_patch_size / factor) for length in (height, width))
        return math.prod(sides)

    rows, columns = (int(pixels[name][0]) for name in ("image_rows", "image_cols"))
    whole = facts.image * states(*pixels["image_sizes"][0].tolist())
    tiles = ""
    if rows * columns > 1:
        tile = facts.image * states(shape.tile_size, shape.tile_size)
        places = [(row, column) for row in range(1, rows + 1) for column in range(1, columns + 1)]
        tiles = "".join(f"<|img_row_{row}_col_{column}|>{tile}" for row, column in places)
        whole = f"<|img_thumbnail|>{whole}" if shape.use_thumbnail else ""
    return f"<|image_start|>{tiles}{whole}<|image_end|>"


def _llama_4(facts: Facts, pixels: Pixels) -> str:
    """The tiles, row by row, then the small picture."""
    rows, columns = pixels["aspect_ratios"][0].tolist()
    tile = facts.image * facts.tile
    line = "<|tile_x_separator|>".join([tile] * columns)
    tiles = f"{line}<|tile_y_separator|>" * rows if rows * columns > 1 else ""
    return f"<|image_start|>{tiles}<|image|>{tile}<|image_end|>"


# -- what a config says of them ---------------------------------------------------------------------------------------


def _same_grids(processor: Any, config: Any) -> None:
    told, found = (sorted(map(list, one.image_grid_pinpoints)) for one in (config, processor))
    if told != found:
        raise CheckpointError(
            f"image_grid_pinpoints: the model's config says {told}, its image processor {found}: take the files that "
            "were published together"
        )
    side, sides = config.vision_config.image_size, {length for length in dict(processor.size).values() if length}
    if sides != {side}:
        raise CheckpointError(f"size of a tile: the model's config says {side}, its image processor {sides}")


def _capped(processor: Any, config: Any) -> None:
    _same_grids(processor, config)
    processor.vision_aspect_ratio = config.vision_aspect_ratio


def _same_patches(processor: Any, config: Any) -> None:
    names = {
        "patch_size": "patch_size",
        "merge_size": "spatial_merge_size",
        "temporal_patch_size": "temporal_patch_size",
    }
    told = {ours: getattr(config.vision_config, theirs) for ours, theirs in names.items()}
    found = {name: getattr(processor, name) for name in names}
    if told != found:
        raise CheckpointError(f"patches: the model's config says {told}, its image processor {found}")


def _merged_patches(processor: Any, config: Any) -> None:
    """Sides become multiples of what the model merges to one state."""
    patch = config.vision_config.patch_size * config.spatial_merge_size
    processor.patch_size = {"height": patch, "width": patch}


def _shuffled(config: Any) -> int:
    return _patches(config) // int(config.scale_factor) ** 2


def _llama_4_tile(config: Any) -> int:
    return _patches(config) // round(1 / float(config.vision_config.pixel_shuffle_ratio) ** 2)


GRID = Layout(_per_grid, fit=_same_patches)
TILES = Layout(
    _rows_and_columns, _shuffled, (GLOBAL, FAKE), asks={"return_row_col_info": True}, ours=frozenset({"rows", "cols"})
)
LAYOUTS: dict[str, Layout] = {
    "gemma3": Layout(
        _gemma_3,
        lambda config: config.mm_tokens_per_image,
        ("<start_of_image>", "<end_of_image>"),
        written="<start_of_image>",
        around=("\n\n", "\n\n"),
        asks={"do_pan_and_scan": False},
        ours=frozenset({"num_crops"}),
    ),
    "gemma4": Layout(_gemma_4, needs=("<|image>", "<image|>"), ours=frozenset({"num_soft_tokens_per_image"})),
    "glm4v": GRID,
    "idefics3": TILES,
    "internvl": Layout(
        _per_tile,
        lambda config: config.image_seq_length,
        ("<img>", "</img>"),
        asks={"crop_to_patches": True},
        ours=frozenset({"num_patches"}),
    ),
    "kimi_k25": Layout(_per_grid, pillow=False),
    "lfm2_vl": Layout(
        _lfm2,
        needs=("<|image_start|>", "<|image_end|>"),
        asks={"return_row_col_info": True},
        ours=frozenset({"image_rows", "image_cols", "image_sizes"}),
        pillow=False,
    ),
    "llama4": Layout(
        _llama_4,
        _llama_4_tile,
        ("<|image_start|>", "<|tile_x_separator|>", "<|tile_y_separator|>", "<|image|>", "<|image_end|>"),
        written="<|image|>",
        ours=frozenset({"aspect_ratios"}),
        pillow=False,
    ),
    "llava_next": Layout(_any_resolution, _patches, fit=_same_grids),
    "llava_onevision": Layout(_any_resolution, _patches, fit=_capped, ours=frozenset({"batch_num_images"})),
    "mistral3": Layout(_lines, needs=("[IMG_BREAK]", "[IMG_END]"), fit=_merged_patches),
    "qwen2_5_vl": GRID,
    "qwen2_vl": GRID,
    "qwen3_5": GRID,
    "qwen3_vl": GRID,
    "smolvlm": TILES,
}
