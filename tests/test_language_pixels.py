"""Each family's pictures: its own image processor on Pillow, and the tokens that its own processor class lays out."""

import importlib
from dataclasses import replace
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from byte_tokenizer import byte_tokenizer
from PIL import Image
from transformers import AutoConfig
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

from cores.errors import CheckpointError
from cores.processing import ProcessorSizes
from cores.processing.language_pixels import (
    ImageProcessorRule,
    SquareRule,
    language_sizes,
    load_image_processor,
    pixel_rule,
    read_image_processor,
)
from cores.processing.picture_layouts import LAYOUTS, Facts
from cores.processing.tokens import encode, encode_conversation
from cores.prompts.prompt import Piece

SIZES = [(640, 480), (300, 1000), (517, 333), (70, 901)]  # width, height
ROWS = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
TILES = ["<fake_token_around_image>", "<global-img>", *ROWS]
# What a family's tokenizer holds beside the placeholder, and its processor class with what it is made of.
TOKENS = {
    "gemma3": ("<image_soft_token>", "<start_of_image>", "<end_of_image>"),
    "gemma4": ("<|image|>", "<|image>", "<image|>"),
    "glm4v": ("<|image|>",),
    "idefics3": ("<image>", *TILES),
    "internvl": ("<IMG_CONTEXT>", "<img>", "</img>"),
    "llava_next": ("<image>",),
    "llava_onevision": ("<image>",),
    "mistral3": ("[IMG]", "[IMG_BREAK]", "[IMG_END]"),
    "smolvlm": ("<image>", *TILES),
}
ON_PILLOW = sorted(name for name, layout in LAYOUTS.items() if layout.pillow)


def tokens_of(family):
    return TOKENS.get(family, ("<|image_pad|>",))


def family_config(family, **changes):
    if family in ("idefics3", "smolvlm"):  # the published sizes
        side, patch, scale = {"idefics3": (364, 14, 2), "smolvlm": (512, 16, 4)}[family]
        changes = {"vision_config": {"image_size": side, "patch_size": patch}, "scale_factor": scale, **changes}
    return AutoConfig.for_model(family, **changes)


OPTIONS = {  # of the published files, where they are not the class's own
    "llava_next": {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}},
    "qwen3_5": {"patch_size": 16},
    "qwen3_vl": {"patch_size": 16},
}


def own_images(family):
    """A family's image processor class, on Pillow."""
    name = IMAGE_PROCESSOR_MAPPING_NAMES[family]["pil"]
    home = {"GotOcr2": "got_ocr2", "Pixtral": "pixtral", "Qwen2VL": "qwen2_vl"}
    place = next((where for start, where in home.items() if name.startswith(start)), family)
    return getattr(importlib.import_module(f"transformers.models.{place}.image_processing_pil_{place}"), name)


def made(family, folder):
    """A family's rule as it comes from the folder of its weights, with its own image processor."""
    own = own_images(family)
    own(**OPTIONS.get(family, {})).save_pretrained(folder)
    tokenizer = byte_tokenizer(tokens_of(family), eos="</s>")
    config = family_config(family)
    config.image_token_id = tokenizer.convert_tokens_to_ids(tokens_of(family)[0])
    processor = load_image_processor(folder, config)
    assert type(processor) is own
    sizes = ProcessorSizes(segmenter_image_size=64, **language_sizes(config))
    rule = pixel_rule(sizes, tokenizer, processor)
    assert isinstance(rule, ImageProcessorRule)
    return rule, config


def picture(size, seed=0):
    width, height = size
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def own_class(family):
    """A family's processor class."""
    place = "qwen3_vl" if family == "qwen3_5" else family
    module = importlib.import_module(f"transformers.models.{place}.processing_{place}")
    return getattr(module, module.__all__[0])


def own_text(family, rule, config, image):
    """What the family's own processor class puts in a picture's place, by its private helper."""
    if family == "mistral3":  # its class wants torchvision; none of the pictures is too large to keep its size
        patch = config.vision_config.patch_size * config.spatial_merge_size
        columns, rows = (-(-length // patch) for length in image.size)
        return ("[IMG]" * columns + "[IMG_BREAK]") * (rows - 1) + "[IMG]" * columns + "[IMG_END]"
    kind = own_class(family)
    own = object.__new__(kind)  # whole ones want torchvision or num2words for videos
    first, *others = tokens_of(family)
    own.image_processor, own.image_token, own.tokenizer = rule.processor, first, rule.tokenizer
    if family in ("idefics3", "smolvlm"):
        own.fake_image_token, own.global_image_tag, own.global_image_token = others[0], others[1], others[1]
        vision = config.vision_config
        own.image_seq_len = (vision.image_size // vision.patch_size) ** 2 // config.scale_factor**2
    elif family == "internvl":
        own.start_image_token, own.end_image_token = others
        own.image_seq_length = config.image_seq_length
    elif family == "gemma3":
        own.full_image_sequence = f"\n\n{others[0]}{first * config.mm_tokens_per_image}{others[1]}\n\n"
    elif family == "gemma4":
        own.boi_token, own.eoi_token = others
    elif family == "llava_next":
        own.patch_size, own.num_additional_image_tokens = config.vision_config.patch_size, 1
        own.vision_feature_select_strategy = config.vision_feature_select_strategy
    elif family == "llava_onevision":
        own.num_image_tokens = (config.vision_config.image_size // config.vision_config.patch_size) ** 2
        own.vision_feature_select_strategy = config.vision_feature_select_strategy
        own.vision_aspect_ratio = config.vision_aspect_ratio
    asks = getattr(kind, "images_kwargs", {})
    inputs = own.image_processor(images=[image], **{"return_tensors": "pt", **asks})
    if "batch_num_images" in inputs:
        inputs["batch_num_images"] = [1]
    return own.replace_image_token(dict(inputs), 0)


@pytest.mark.parametrize("family", ON_PILLOW)
def test_a_picture_is_laid_out_as_the_familys_own_processor_does(family, tmp_path):
    rule, config = made(family, tmp_path)
    before, after = rule.around
    for size in SIZES:
        image = picture(size)
        pixels = rule(image)
        assert f"{before}{rule.text(pixels)}{after}" == own_text(family, rule, config, image)
        ids = rule.layout(pixels)
        assert ids[-1] == rule.tokenizer.convert_tokens_to_ids(rule.last)
        assert rule.tokenizer.decode(ids) == rule.text(pixels)
        placeholder = rule.tokenizer.convert_tokens_to_ids(tokens_of(family)[0])
        assert ids.count(placeholder) == rule.text(pixels).count(tokens_of(family)[0])
        assert next(iter(pixels)) == "pixel_values"


COUNTS = {  # placeholders of pictures 480 x 640 and 1000 x 300 (height, width), at the published sizes
    "llava_next": (2340, 2232),
    "idefics3": (2197, 1521),
    "gemma3": (256, 256),
}


@pytest.mark.parametrize("family", COUNTS)
def test_published_models_take_this_many_places(family, tmp_path):
    rule, _ = made(family, tmp_path)
    placeholder = rule.tokenizer.convert_tokens_to_ids(tokens_of(family)[0])
    assert tuple(rule.layout(rule(picture(size))).count(placeholder) for size in SIZES[:2]) == COUNTS[family]


@pytest.mark.parametrize("family", ["gemma3", "idefics3", "llava_next"])
def test_ids_are_those_of_the_whole_processor_where_it_can_be_built(family, tmp_path):
    rule, config = made(family, tmp_path)
    tokenizer, first = rule.tokenizer, tokens_of(family)[0]
    options = {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    if family == "gemma3":
        names = dict(zip(("image_token", "boi_token", "eoi_token"), tokens_of(family), strict=True))
        tokenizer = byte_tokenizer(tokens_of(family), eos="</s>", extra_special_tokens=names)
    own = own_class(family)(rule.processor, tokenizer, **(options if family == "llava_next" else {}))
    for size in SIZES[2:]:
        image = picture(size)
        theirs = own(images=[image], text=f"see:\n{rule.written}\nIt is")
        before, after = rule.around
        ours = [*encode(tokenizer, f"see:\n{before}"), *rule.layout(rule(image))]
        ours += encode_conversation(tokenizer, [Piece(f"{after}\nIt is", False)], rule.last).ids
        assert ours == list(theirs["input_ids"][0])
        kept = rule.batch([rule(image)])
        assert set(kept) == set(theirs) - {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"}
        assert all(np.array_equal(kept[name], np.array(theirs[name])) for name in kept)
        assert config.image_token_id == tokenizer.convert_tokens_to_ids(first)


def test_pictures_of_several_sizes_are_joined(tmp_path):
    for family, axes in {"qwen2_vl": [2, 2], "llava_next": [5, 2], "mistral3": [4, 2], "idefics3": [5, 4]}.items():
        rule, _ = made(family, tmp_path)
        each = [rule(picture(size)) for size in SIZES[1:3]]
        both = rule.batch(each)
        assert [value.dim() for value in both.values()] == axes
        first = 0
        for one in each:
            for name, value in both.items():
                rows = value[sum(len(e[name]) for e in each[:first]) :][: len(one[name])]
                corner = rows[tuple(slice(length) for length in one[name].shape)]
                assert torch.equal(corner, one[name])
                assert rows.count_nonzero() == one[name].count_nonzero()  # the rest is filled up with 0
            first += 1


# -- families whose image processor needs torchvision -----------------------------------------------------------------


def stood_in(family, shape, tile=0):
    """A rule's facts without the image processor: its numbers alone."""
    layout, image = LAYOUTS[family], {"llama4": "<|patch|>", "lfm2_vl": "<image>"}.get(family, "<|media_pad|>")
    return lambda pixels: layout.text(Facts(image, tile, SimpleNamespace(**shape)), pixels)


def test_layouts_of_families_without_pillow_are_their_own_helpers(tmp_path):
    own = object.__new__(own_class("kimi_k25"))
    own.image_processor, own.image_token = SimpleNamespace(merge_size=2), "<|media_pad|>"
    grid = {"image_grid_thw": torch.tensor([[1, 6, 14]])}
    assert stood_in("kimi_k25", {"merge_size": 2})(grid) == own.replace_image_token(grid, 0) == "<|media_pad|>" * 21

    shape = {"tile_size": 512, "downsample_factor": 2, "encoder_patch_size": 16, "use_thumbnail": True}
    own = object.__new__(own_class("lfm2_vl"))
    own.image_processor = SimpleNamespace(**shape)
    own.image_token, own.image_start_token, own.image_end_token = "<image>", "<|image_start|>", "<|image_end|>"
    own.image_thumbnail_token = "<|img_thumbnail|>"
    for rows, columns, size in [(1, 1, (256, 400)), (2, 3, (336, 496)), (1, 2, (96, 208))]:
        pixels = {"image_rows": [rows], "image_cols": [columns], "image_sizes": torch.tensor([size])}
        theirs = own.replace_image_token(pixels, 0, use_image_special_tokens=True)
        assert stood_in("lfm2_vl", shape)(pixels) == theirs

    own = object.__new__(own_class("llama4"))
    own.patch_size, own.downsample_ratio = 14, 4
    config = family_config("llama4")
    side = config.vision_config.image_size
    own.patch_size = config.vision_config.patch_size
    own.downsample_ratio = round(1 / config.vision_config.pixel_shuffle_ratio**2)
    for ratio in [(1, 1), (2, 3), (1, 4)]:
        pixels = {"aspect_ratios": torch.tensor([ratio]), "pixel_values": torch.zeros(1, 3, side, side)}
        theirs = own.replace_image_token({**pixels, "aspect_ratios": [ratio]}, 0)
        assert stood_in("llama4", {}, LAYOUTS["llama4"].tile(config))(pixels) == theirs


@pytest.mark.skipif(find_spec("torchvision") is not None, reason="they run here")
@pytest.mark.parametrize("family", sorted(set(LAYOUTS) - set(ON_PILLOW)))
def test_they_are_refused_by_name(family, tmp_path):
    with pytest.raises(CheckpointError, match=f"{family}: .* no version for Pillow: pip install torchvision"):
        load_image_processor(tmp_path, family_config(family))


# -- what does not fit ------------------------------------------------------------------------------------------------


def test_what_does_not_go_together_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match=r"bert: how it sees pictures is not known here; known are .*llava"):
        language_sizes(SimpleNamespace(model_type="bert", image_token_id=0))
    with pytest.raises(CheckpointError, match=r"preprocessor_config.json: cannot be read as an image processor"):
        read_image_processor(tmp_path, "qwen2_vl")
    rule, config = made("llava_next", tmp_path)
    config.image_grid_pinpoints = [[336, 672]]
    with pytest.raises(CheckpointError, match=r"image_grid_pinpoints: the model's config says \[\[336, 672\]\]"):
        load_image_processor(tmp_path, config)
    config = family_config("llava_next")
    config.vision_config.image_size = 224
    with pytest.raises(CheckpointError, match="size of a tile: the model's config says 224"):
        load_image_processor(tmp_path, config)
    made("qwen2_vl", tmp_path / "other")
    with pytest.raises(CheckpointError, match="patches: the model's config says .*16.*, its image processor .*14"):
        load_image_processor(tmp_path / "other", family_config("qwen3_vl"))
    sizes = ProcessorSizes(segmenter_image_size=64, **language_sizes(family_config("llava_next")))
    with pytest.raises(CheckpointError, match="image_token_id: found 32000, expected the placeholder of llava_next"):
        pixel_rule(sizes, rule.tokenizer, rule.processor)
    with pytest.raises(CheckpointError, match="pixel_rule llava_next: needs the family's image processor"):
        pixel_rule(sizes, rule.tokenizer)
    bare = byte_tokenizer(["<image>"])
    sizes = replace(sizes, pixel_rule="smolvlm", image_token_id=bare.convert_tokens_to_ids("<image>"))
    with pytest.raises(CheckpointError, match="does not hold <global-img>, <fake_token_around_image>"):
        pixel_rule(sizes, bare, rule.processor)
    with pytest.raises(CheckpointError, match="mllm_image_size: found 0, expected a whole number from 1"):
        replace(sizes, pixel_rule="square")


@pytest.mark.parametrize("family", ["llava", "vipllava"])
def test_llava_sees_the_published_square(family, tmp_path):
    config = AutoConfig.for_model(family)
    assert load_image_processor(tmp_path, config) is None
    tokenizer = byte_tokenizer(["<image>"])
    rule = pixel_rule(ProcessorSizes(segmenter_image_size=64, **language_sizes(config)), tokenizer)
    assert isinstance(rule, SquareRule)
    pixels = [rule(picture(size)) for size in SIZES[:2]]
    assert rule.batch(pixels)["pixel_values"].shape == (2, 3, 336, 336)
    assert rule.layout(pixels[0]) == [config.image_token_id] * 576
