"""What is laid out for a picture and what the family's tower makes of it are equally many."""

import pytest
import torch
from byte_tokenizer import byte_tokenizer
from test_language_pixels import ON_PILLOW, own_images, picture, tokens_of
from tiny_families import FAMILIES, SQUARES

from cores.processing import ProcessorSizes
from cores.processing.language_pixels import language_sizes, load_image_processor, pixel_rule

SIDES = {"height": 16, "width": 16}
GRID = {"patch_size": 4, "size": {"shortest_edge": 256, "longest_edge": 4096}}
TILES = {"size": {"longest_edge": 32}, "max_image_size": {"longest_edge": 16}}
OPTIONS = {  # image processors for the tiny configs
    "gemma3": {"size": SIDES},
    "gemma4": {"patch_size": 4, "pooling_kernel_size": 2, "max_soft_tokens": 70},
    "glm4v": {"patch_size": 4, "size": {"shortest_edge": 512, "longest_edge": 8192}},
    "idefics3": TILES,
    "internvl": {"size": SIDES},
    "llava_next": {"size": {"shortest_edge": 16}, "crop_size": SIDES, "image_grid_pinpoints": SQUARES},
    "llava_onevision": {"size": SIDES, "image_grid_pinpoints": SQUARES},
    "mistral3": {"size": {"longest_edge": 32}},
    "qwen2_5_vl": GRID,
    "qwen2_vl": GRID,
    "qwen3_5": GRID,
    "qwen3_vl": GRID,
    "smolvlm": TILES,
}


@pytest.mark.parametrize("family", sorted(set(FAMILIES) & set(ON_PILLOW)))
def test_a_tower_gives_as_many_states_as_there_are_places(family, tmp_path):
    tiny = FAMILIES[family]
    changes = {"internvl": {"image_seq_length": 4}}.get(family, {})
    if family == "gemma4":  # its image processor makes at least this many places
        changes = {"vision_config": {**tiny.config["vision_config"], "position_embedding_size": 70}}
    model = tiny.build(**changes)
    own_images(family)(**OPTIONS[family]).save_pretrained(tmp_path)
    tokenizer = byte_tokenizer(tokens_of(family))
    images = load_image_processor(tmp_path, model.config)
    number = tokenizer.convert_tokens_to_ids(tokens_of(family)[0])
    sizes = ProcessorSizes(segmenter_image_size=64, **{**language_sizes(model.config), "image_token_id": number})
    rule = pixel_rule(sizes, tokenizer, images)
    each = [rule(picture(size)) for size in ((40, 24), (13, 31), (24, 24))]
    places = [rule.layout(one).count(number) for one in each]
    with torch.no_grad():
        found = model.model.get_image_features(**rule.batch(each), return_dict=True).pooler_output
    states = sum(value.numel() for value in ([found] if isinstance(found, torch.Tensor) else found)) // 32
    assert states == sum(places)
    assert (len(set(places)) > 1) is (family != "gemma3")
