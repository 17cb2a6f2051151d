"""Samples to batches and back: what is supervised, where chains are predicted, what is drawn, left out and refused."""

import dataclasses
import inspect
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import IM_END, IMAGE, IMAGE_TOKENS, LOC, PART, SEG, tiny_config, tiny_model
from tiny_tokenizer import tiny_processor, tiny_tokenizer
from transformers import AutoProcessor

from cores.data.sample import Conversation, Sample, Target, Turn
from cores.errors import CheckpointError, DataError, UserError
from cores.masks import encode
from cores.modeling.model import CoresModel
from cores.processing import CoresProcessor, ProcessorSizes, add_tokens
from cores.processing.batch import Batch
from cores.prompts import PromptSettings

SIZE = (40, 60)
SIZES = ProcessorSizes(mllm_image_size=32, image_tokens=IMAGE_TOKENS, image_token_id=IMAGE, segmenter_image_size=64)


def mask(top, left):
    found = np.zeros(SIZE, dtype=bool)
    found[top : top + 9, left : left + 12] = True
    return found


def target(place, phrase=None, location=None):
    return Target(encode(mask(*place)), None if location is None else encode(mask(*location)), phrase)


def sample(*turns, **kwargs):
    """Each turn its own conversation; a list of turns is one conversation."""
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    conversations = tuple(Conversation(tuple(turn) if isinstance(turn, list) else (turn,)) for turn in turns)
    return Sample(Image.fromarray(pixels), SIZE, conversations, **kwargs)


ONE = Turn("kettle", targets=(target((2, 3), location=(1, 1)),))
TWO = Turn("What is on the left?", None, (target((4, 5), "the cup"), target((20, 30), "the knife")), "sentence")
ABSENT = Turn("blade")
WHY = Turn("What can cut?", "It is a knife.", (target((9, 9)),), "explain")
TALK = [Turn("How many are there?", "Two.", (), "raw"), Turn("Where?", "On the left.", (), "raw")]


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_a_batch_says_where_every_token_is_predicted_and_what_is_true_there(levels):
    processor = tiny_processor(levels)
    ignored = encode(mask(30, 40))
    batch = processor.collate([sample(TALK), sample(ONE, TWO, ABSENT, WHY, TALK, ignore=ignored)], 0, 0, [0, 1])
    tokens = {1: [SEG], 2: [LOC, SEG], 3: [LOC, PART, SEG]}[levels]
    positions, rows = batch["token_positions"], batch["image_index"]
    assert positions.shape == (levels, 4)
    assert rows.tolist() == [1] * 4  # masks of the second picture, though the first has none
    for level, token in enumerate(tokens):
        assert batch["input_ids"][rows, positions[level] + 1].eq(token).all()
        assert batch["labels"][rows, positions[level] + 1].eq(token).all()
    assert (positions[:-1] < positions[1:]).all()
    for found, wanted in zip(batch["truth"], [(2, 3), (4, 5), (20, 30), (9, 9)], strict=True):
        assert found.dtype == torch.bool
        assert np.array_equal(found.numpy(), mask(*wanted))
    assert [found is None for found in batch["location_truth"]] == [False, True, True, True]
    assert np.array_equal(batch["location_truth"][0].numpy(), mask(1, 1))
    assert batch["ignore"][0] is None
    assert np.array_equal(batch["ignore"][1].numpy(), mask(30, 40))
    assert batch["sizes"] == [SIZE, SIZE]
    assert batch["resized"] == [(43, 64), (43, 64)]
    output = tiny_model(tiny_config(levels))(**batch)
    assert output.loss.isfinite()
    assert output.low_res_logits[-1].shape == (4, 32, 32)


def test_a_row_is_prefix_then_conversations_and_answers_alone_are_learned():
    processor = tiny_processor(exemplars="fixed")
    batch = processor.collate([sample(ONE, TALK), sample(ABSENT)], 0, 0, [0, 1], mode="val")
    ids, segments, labels = (batch[key] for key in ("input_ids", "segment_ids", "labels"))
    prefix = processor.prefix()
    assert (ids == IMAGE).sum(1).tolist() == [IMAGE_TOKENS] * 2
    for row in range(2):
        assert ids[row][segments[row] == 0].tolist() == prefix.tolist()
        assert prefix[-1] == IM_END
        assert labels[row][segments[row] <= 0].eq(-100).all()
        assert ids[row][segments[row] == -1].eq(0).all()
    learned = [processor.tokenizer.decode(ids[0][(labels[0] != -100) & (segments[0] == n)]) for n in (1, 2)]
    assert learned == ["it usually appears on [LOC]. it is [SEG]. </s>", "two. </s> on the left. </s>"]
    assert segments[0].max() == 2
    assert processor.parse_answer(ids[1][labels[1] != -100]).status == "absent"


@pytest.mark.parametrize("turn", [ONE, TWO, ABSENT, WHY, TALK[0]], ids=["one", "two", "absent", "why", "talk"])
def test_asking_and_teacher_forcing_read_what_training_reads(turn):
    processor = tiny_processor()
    batch = processor.collate([sample(turn)], 0, 0, [0], mode="val")
    picture = processor.picture(sample(turn).image)
    parts = [processor.prefix(0, picture.key), processor.question(turn.query, turn.form), processor.answer_ids(turn)]
    assert torch.cat(parts).tolist() == batch["input_ids"][0].tolist()
    assert torch.equal(picture.segmenter_pixels, batch["segmenter_pixels"][0])
    assert parts[2][-len(processor.closing) :].tolist() == processor.closing


def test_a_sample_depends_on_seed_epoch_and_index_and_on_nothing_beside_it():
    processor = tiny_processor(exemplars="random")
    first, other = sample(ONE, TWO), sample(WHY)

    def row(samples, indices, seed=7, epoch=3):
        batch = processor.collate(samples, seed, epoch, indices)
        return batch["input_ids"][0][batch["segment_ids"][0] >= 0].tolist()

    alone = row([first], [11])
    assert row([first, other], [11, 12]) == alone
    assert tiny_processor(exemplars="random").collate([first], 7, 3, [11])["input_ids"][0].tolist() == alone
    changed = [row([first], [i], s, e) for i, s, e in ((12, 7, 3), (11, 8, 3), (11, 7, 4))]
    assert all(found != alone for found in changed)


def test_when_asked_the_exemplar_depends_on_seed_and_picture():
    processor = tiny_processor(exemplars="random")
    assert torch.equal(processor.prefix(1, "a"), processor.prefix(1, "a"))
    by_key = {tuple(processor.prefix(1, key).tolist()) for key in "abcdefghijklmnop"}
    by_seed = {tuple(processor.prefix(seed, "a").tolist()) for seed in range(16)}
    assert len(by_key) > 8
    assert len(by_seed) > 8


def test_an_absent_thing_may_be_taught_as_an_empty_mask():
    processor = tiny_processor(on_absent="empty_mask")
    batch = processor.collate([sample(ABSENT, ONE)], 0, 0, [0])
    assert [found.sum().item() for found in batch["truth"]] == [0, 9 * 12]
    assert batch["truth"][0].shape == SIZE
    assert batch["location_truth"][0] is None
    assert tiny_processor().collate([sample(ABSENT)], 0, 0, [0])["token_positions"].shape == (2, 0)


def test_what_does_not_fit_is_left_out_or_cut_where_nothing_is_lost():
    processor = tiny_processor()
    fixed = len(processor.prefix()) - IMAGE_TOKENS + 1

    def kept(turn, room):
        processor.sizes = dataclasses.replace(SIZES, max_text_tokens=fixed + room)
        processor.dropped = Counter()
        batch = processor.collate([sample(turn, TALK[0])], 0, 0, [5])
        ids = batch["input_ids"][0][batch["segment_ids"][0] == 1]
        return processor.tokenizer.decode(ids), len(batch["truth"]), dict(processor.dropped)

    whole, masks, dropped = kept(WHY, 100)
    assert (masks, dropped) == (1, {})
    grounded = whole[: whole.index("[SEG]") + len("[SEG]")]
    explained = len(processor.tokenizer.encode(whole, add_special_tokens=False))
    needed = len(processor.tokenizer.encode(grounded, add_special_tokens=False))
    assert kept(WHY, explained)[2] == {}
    assert kept(WHY, needed) == (grounded, 1, {"cut": 1})
    talk, masks, dropped = kept(WHY, needed - 1)  # [SEG] itself would be cut: the next conversation takes its place
    assert talk.startswith("how many are there?")
    assert (masks, dropped) == (0, {"left out": 1})

    both = len(processor.tokenizer.encode(kept(TALK, 100)[0], add_special_tokens=False))
    one, _, dropped = kept(TALK, both - 1)
    assert one.endswith("assistant : two. </s>")
    assert dropped == {"cut": 1}
    processor.sizes = dataclasses.replace(SIZES, max_text_tokens=1)
    batch = processor.collate([sample(TALK)], 0, 0, [0])
    assert batch["labels"].eq(-100).all()
    assert (batch["segment_ids"] == 0).all()
    validated = processor.collate([sample(WHY)], 0, 0, [0], mode="val")  # nothing is cut there
    assert len(validated["truth"]) == 1


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_every_answer_is_read_as_it_was_written(levels):
    processor = tiny_processor(levels)
    for template in processor.writer.words.answers:
        written = processor.writer.fill(template).lower().replace("[loc]", "[LOC]").replace("[part]", "[PART]")
        written = written.replace("[seg]", "[SEG]")
        reading = processor.parse_answer(processor.answer_ids(processor.writer.fill(template)))
        assert (reading.text, reading.status, reading.phrases) == (written, "segmented", [None])
    named = processor.parse_answer(processor.answer_ids(TWO))
    assert (named.status, named.phrases) == ("segmented", ["the cup", "the knife"])
    for refusal in processor.writer.words.refusals:
        assert processor.parse_answer(processor.answer_ids(refusal)).status == "absent"
    assert processor.parse_answer(processor.answer_ids("It is a red cup.")).status == "text"
    assert processor.parse_answer([]).text == ""
    if levels > 1:  # a location alone finds nothing
        assert processor.parse_answer([LOC]).status == "text"
    assert processor.parse_answer([SEG]).phrases == [None]


def test_a_saved_processor_is_the_same_one(tmp_path):
    processor = tiny_processor(3, exemplars=2, style="published")
    processor.sizes = dataclasses.replace(SIZES, clip_fit="crop", max_text_tokens=200)
    processor.save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert type(again) is CoresProcessor
    assert (again.prompt, again.sizes, again.closing) == (processor.prompt, processor.sizes, processor.closing)
    one, two = (made.collate([sample(ONE, TWO)], 1, 2, [3]) for made in (processor, again))
    for key in ("input_ids", "labels", "token_positions", "pixel_values", "segmenter_pixels"):
        assert torch.equal(one[key], two[key])


def test_settings_may_be_changed_and_what_does_not_fit_is_an_error():
    processor = tiny_processor()
    processor.prompt = dataclasses.replace(processor.prompt, exemplars="fixed")
    assert len(processor.prefix()) > len(tiny_processor().prefix())
    known = processor.answer_templates
    assert processor.answer_ids().tolist() in known.single
    assert known is processor.answer_templates
    processor.prompt = PromptSettings(style="lisa")
    assert processor.answer_ids().tolist() in processor.answer_templates.single
    assert processor.answer_templates != known
    with pytest.raises(CheckpointError, match=r"does not hold \[SEG_SEMA\]: add them"):
        CoresProcessor(tiny_tokenizer(), PromptSettings(style="published", tokens={}), SIZES)
    with pytest.raises(CheckpointError, match="clip_fit: found 'stretch'.*expected pad or crop"):
        dataclasses.replace(SIZES, clip_fit="stretch")

    tokenizer = tiny_tokenizer()
    assert add_tokens(tokenizer, ["[SEG_SEMA]", "[SEG]"]) == ["[SEG_SEMA]"]
    assert CoresProcessor(tokenizer, PromptSettings(style="published"), SIZES).token_ids == [len(tokenizer) - 1, SEG]


def test_a_folder_that_is_no_models_says_what_is_missing(tmp_path):
    with pytest.raises(CheckpointError, match=r"processor_config.json: is missing"):
        CoresProcessor.from_pretrained(tmp_path)
    tiny_processor().save_pretrained(tmp_path)
    (tmp_path / "processor_config.json").write_text('{"self_test": [], "colour": 1}')
    with pytest.raises(CheckpointError, match=r"processor_config.json: cannot be read.*colour"):
        CoresProcessor.from_pretrained(tmp_path)


def test_bad_samples_and_queries_are_named():
    processor = tiny_processor()
    with pytest.raises(UserError, match="the query is empty"):
        processor.question("  ")
    with pytest.raises(UserError, match="marks the picture's place"):
        processor.question("what is <image> ?")
    wrong = dataclasses.replace(sample(ONE), image=Image.new("RGB", (50, 40)), meta={"name": "train-7"})
    with pytest.raises(DataError, match=r"train-7: the picture is \(40, 50\) .* masks are \(40, 60\)"):
        processor.collate([wrong], 0, 0, [0])
    for answer in ("{seg} is on {loc}.", "{seg}."):
        turn = Turn("kettle", answer, (target((1, 1)),), "raw")
        with pytest.raises(DataError, match="without all of its levels in order"):
            processor.collate([sample(turn)], 0, 0, [0])


def test_a_batch_has_the_parameters_of_the_model_and_no_others():
    """The one contract between processor and model: a key that either side renames is seen here."""
    taken = set(inspect.signature(CoresModel.forward).parameters) - {
        "self",
        "features",
        "drawn",
    }  # of a cache, of rewards
    told = set(Batch.__annotations__) - {"dropped"}  # taken out again by the trainer, for its log
    assert told == taken == set(tiny_processor().collate([sample(ONE)], 0, 0, [0]))
