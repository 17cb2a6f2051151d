"""A family's own pictures before its own tower: as many places as states, in training as in asking."""

import copy

import pytest
import torch
from byte_tokenizer import byte_tokenizer
from test_chat import CHATML
from test_language_pixels import ON_PILLOW, own_images, tokens_of
from test_processor_families import sample
from tiny import tiny_config
from tiny_families import FAMILIES, SQUARES
from transformers import AutoConfig

from cores.asking.asker import Asker
from cores.modeling import CoresConfig, CoresModel
from cores.processing import CoresProcessor, ProcessorSizes, add_tokens
from cores.processing.language_pixels import language_sizes, load_image_processor
from cores.processing.picture_layouts import LAYOUTS
from cores.prompts import PromptSettings

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
MARKS = {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"}


def model_and_processor(family, folder):
    """A tiny model of a family over a tiny SAM, with its own image processor and a chat template."""
    own_images(family)(**OPTIONS[family]).save_pretrained(folder)
    template = CHATML.replace("<image>", LAYOUTS[family].written or tokens_of(family)[0])
    special = [*tokens_of(family), *MARKS.values(), "<|im_start|>"]
    tokenizer = byte_tokenizer(special, eos="<|im_end|>", chat_template=template)
    add_tokens(tokenizer, ["[LOC]", "[SEG]"], marks=False)
    of = tokenizer.convert_tokens_to_ids

    values = copy.deepcopy(FAMILIES[family].config)
    values["text_config"] |= {"vocab_size": len(tokenizer), "max_position_embeddings": 4096}
    values |= {name: of(tokens_of(family)[0]) for name in ("image_token_id", "image_token_index")}
    values |= {name: of(token) for name, token in MARKS.items() if name in values}
    if family == "mistral3":  # the question, byte by byte, is further from the picture than its window is long
        values["text_config"]["sliding_window"] = None
    if family == "internvl":
        values["image_seq_length"] = 4
    if family == "gemma4":  # its image processor makes at least this many places
        values["text_config"]["vocab_size_per_layer_input"] = len(tokenizer)
        values["vision_config"]["position_embedding_size"] = 70
    mllm = AutoConfig.for_model(**values)
    levels = [{"name": n, "token": t, "token_id": of(t)} for n, t in (("location", "[LOC]"), ("target", "[SEG]"))]
    torch.manual_seed(0)
    segmenter = tiny_config().segmenter_config
    model = CoresModel(CoresConfig(mllm_config=mllm, segmenter_config=segmenter, levels=levels))
    for parameter in model.parameters():  # some families begin at zero: their picture would not be seen at all
        if parameter.dim() > 1:
            parameter.data.normal_(0, 0.2)
    sizes = ProcessorSizes(segmenter_image_size=64, **language_sizes(mllm))
    images = load_image_processor(folder, mllm)
    return model, CoresProcessor(tokenizer, PromptSettings(format="chat", exemplars="none"), sizes, images)


@pytest.mark.parametrize("family", sorted(set(FAMILIES) & set(ON_PILLOW)))
def test_a_family_is_trained_and_asked_with_its_own_pictures(family, tmp_path):
    model, processor = model_and_processor(family, tmp_path)
    samples = [sample(size) for size in ((40, 24), (13, 31), (24, 24))]

    pictures = [processor.picture(one.image) for one in samples]
    places = [one.layout.count(processor.sizes.image_token_id) for one in pictures]
    with torch.no_grad():
        pixels = processor.language_pixels(pictures)
        found = model.mllm.model.get_image_features(**pixels, return_dict=True).pooler_output
    states = [found] if isinstance(found, torch.Tensor) else found
    assert sum(value.numel() for value in states) == sum(places) * model.mllm.width
    assert (len(set(places)) > 1) is (family != "gemma3")

    model(**processor.collate(samples, 0, 0, [0, 1, 2])).loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)

    model.eval()
    with torch.no_grad():
        batch = processor.collate(samples, 0, 0, [0, 1, 2], mode="val")
        trained = model(**batch).tokens  # (levels, masks, dim): two questions about each picture
    asker = Asker(model, processor, max_new_tokens=2)
    for row, one in enumerate(samples):
        turns = [talk.turns[0] for talk in one.conversations]
        queries = [(turn.query, turn.form) for turn in turns]
        encoded = asker.encode_image(one.image)
        assert len(asker.generate(encoded, queries)) == 2
        asked = torch.cat([answer.tokens for answer in asker.teacher_force(encoded, queries, turns)], dim=1)
        expected = trained[:, batch["image_index"] == row]
        assert (asked - expected).abs().max() <= 5e-5 * expected.abs().max()
    assert (trained[:, 0] - trained[:, 2]).abs().max() > 1e-3 * trained.abs().max()  # the picture is seen
