"""The processor with a family's own pictures and template: batches of several sizes, room for text, folders."""

from collections import Counter
from dataclasses import replace
from random import Random

import numpy as np
import pytest
import torch
from byte_tokenizer import byte_tokenizer
from test_chat import CHATML, GEMMA, GLM, SMOL
from test_language_pixels import family_config, made, own_class, picture, tokens_of
from transformers import AutoProcessor

from cores.data.sample import Conversation, Sample, Target, Turn
from cores.errors import CheckpointError, DataError
from cores.masks import encode as encode_mask
from cores.processing import CoresProcessor, ProcessorSizes, add_tokens
from cores.processing.chat_formats import take_chat_template
from cores.processing.language_pixels import language_sizes, load_image_processor
from cores.prompts import PromptSettings

SIZES = [(90, 60), (61, 203)]  # width, height
SETUP = {  # template with the family's own placeholder, its further tokens, beginning token and end token
    "qwen2_vl": (
        CHATML.replace("<image>", "<|image_pad|>"),
        ["<|vision_start|>", "<|vision_end|>"],
        None,
        "<|im_end|>",
    ),
    "glm4v": (GLM.replace("<image>", "<|image|>"), ["<|user|>", "<|end_of_image|>"], None, "<eos>"),
    "gemma3": (GEMMA.replace("<image>", "<start_of_image>"), ["<end_of_turn>"], "<bos>", "<eos>"),
    "smolvlm": (SMOL, [], "<|im_start|>", "<end_of_utterance>"),
}


def processor_of(family, folder, **settings):
    """A processor as it is built from the folder of a family's weights."""
    made(family, folder)
    template, special, bos, eos = SETUP[family]
    names = dict(zip(("image_token", "boi_token", "eoi_token"), tokens_of(family), strict=False))
    options = {"extra_special_tokens": names} if family == "gemma3" else {}
    tokenizer = byte_tokenizer([*tokens_of(family), *special], bos, eos, bool(bos), **options)
    (folder / "chat_template.jinja").write_text(template)
    take_chat_template(tokenizer, folder)
    add_tokens(tokenizer, ["[LOC]", "[SEG]"], marks=False)
    config = family_config(family, image_token_id=tokenizer.convert_tokens_to_ids(tokens_of(family)[0]))
    sizes = ProcessorSizes(segmenter_image_size=64, **language_sizes(config))
    images = load_image_processor(folder, config)
    return CoresProcessor(tokenizer, PromptSettings(format="chat", **settings), sizes, images)


def sample(size, *turns):
    width, height = size
    mask = np.zeros((height, width), dtype=bool)
    mask[3:9, 4:12] = True
    targets = (Target(encode_mask(mask)),)
    turns = turns or (Turn("kettle", targets=targets), Turn("What can cut?", "A knife.", targets, "explain"))
    return Sample(picture(size), (height, width), tuple(Conversation((turn,)) for turn in turns))


@pytest.mark.parametrize("family", SETUP)
def test_pictures_of_two_sizes_make_a_batch(family, tmp_path):
    processor = processor_of(family, tmp_path, exemplars="fixed")
    samples = [sample(size) for size in SIZES]
    batch = processor.collate(samples, 0, 0, [0, 1], mode="val")
    pictures = [processor.picture(one.image) for one in samples]
    image = processor.sizes.image_token_id
    for row, (one, seen) in enumerate(zip(samples, pictures, strict=True)):
        prefix = processor.prefix(0, seen.key, seen)
        ids = batch["input_ids"][row]
        assert ids[batch["segment_ids"][row] == 0].tolist() == prefix.tolist()
        assert (ids == image).sum() == seen.layout.count(image) > 0
        turn = one.conversations[1].turns[0]
        whole = [*processor.question(turn.query, turn.form), *processor.answer_ids(turn)]
        assert ids[batch["segment_ids"][row] == 2].tolist() == whole
    counts = {seen.layout.count(image) for seen in pictures}
    assert len(counts) == (1 if family == "gemma3" else 2)
    both = processor.language_pixels(pictures)
    assert torch.equal(both["pixel_values"], batch["pixel_values"])
    assert set(both) == {"pixel_values", *batch["pixel_extras"]}
    assert "rows" not in both
    with pytest.raises(ValueError, match="lays pictures out by their sizes: give the picture"):
        processor.prefix()


@pytest.mark.parametrize("style", ["paper", "lisa"])  # with system text and without
def test_ids_are_the_whole_processors_with_its_own_template(style, tmp_path):
    processor = processor_of("gemma3", tmp_path, exemplars="none", style=style)
    own = own_class("gemma3")(processor.image_processor, processor.tokenizer)
    system = processor.writer.system(Random(0))
    question, answer = "Where is it?", "It is here."
    messages = [{"role": "system", "content": [{"type": "text", "text": system}]}] if system else []
    messages += [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]},
        {"role": "assistant", "content": [{"type": "text", "text": answer}]},
    ]
    text = own.apply_chat_template(messages, chat_template=processor.tokenizer.chat_template)
    seen = processor.picture(picture(SIZES[0]))
    theirs = list(own(images=[picture(SIZES[0])], text=text, add_special_tokens=False)["input_ids"][0])
    ours = [*processor.prefix(0, "", seen).tolist(), *processor._conversation([(question, answer)]).ids]
    assert ours == theirs[: len(ours)]
    assert processor.tokenizer.decode(theirs[len(ours) :]) == "\n"
    if not system:  # the line breaks of the turn and of the picture are one token
        assert processor.tokenizer.convert_tokens_to_ids("ĊĊĊ") in ours


def test_room_for_text_is_counted_without_what_each_picture_takes(tmp_path):
    processor = processor_of("qwen2_vl", tmp_path, exemplars="none")
    samples = [sample(size) for size in SIZES]
    rows = [processor.collate([one], 0, 0, [n])["segment_ids"][0] for n, one in enumerate(samples)]
    layouts = [len(processor.picture(one.image).layout) for one in samples]
    longest = [max(int((row == n).sum()) for n in (1, 2)) for row in rows]
    needed = [
        int((row == 0).sum()) - places + 1 + most for row, places, most in zip(rows, layouts, longest, strict=True)
    ]
    for number, one in enumerate(samples):
        for room, fits in ((needed[number], True), (needed[number] - 1, False)):
            processor.sizes = replace(processor.sizes, max_text_tokens=room)
            processor.dropped = Counter()
            processor.collate([one], 0, 0, [number])
            assert (not processor.dropped) is fits


@pytest.mark.parametrize("family", SETUP)
def test_a_saved_processor_is_the_same_one(family, tmp_path):
    processor = processor_of(family, tmp_path / "base", exemplars=1)
    processor.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text('{"model_type": "cores"}')
    again = AutoProcessor.from_pretrained(tmp_path / "model")
    assert type(again) is CoresProcessor
    assert (again.prompt, again.sizes, again.closing) == (processor.prompt, processor.sizes, processor.closing)
    one, two = (each.collate([sample(size) for size in SIZES], 1, 2, [3, 4]) for each in (processor, again))
    assert torch.equal(one["input_ids"], two["input_ids"])
    assert torch.equal(one["pixel_values"], two["pixel_values"])
    assert all(torch.equal(value, two["pixel_extras"][name]) for name, value in one["pixel_extras"].items())
    (tmp_path / "model" / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match="preprocessor_config.json: cannot be read as an image processor"):
        CoresProcessor.from_pretrained(tmp_path / "model")


def test_a_picture_that_the_family_cannot_take_is_named(tmp_path):
    processor = processor_of("qwen2_vl", tmp_path)
    with pytest.raises(DataError, match="image processor cannot take 900 x 4 pixels: absolute aspect ratio"):
        processor.picture(picture((900, 4)))


def test_nobody_may_write_a_placeholder(tmp_path):
    processor = processor_of("qwen2_vl", tmp_path)
    with pytest.raises(DataError, match="holds the token of a picture's place"):
        processor.question("where is <|image_pad|> ?")
