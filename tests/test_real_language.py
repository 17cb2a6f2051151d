"""A language model that has read the web, in the chain: SmolLM2-135M-Instruct behind a tiny random tower.

The other tests' language models are random or know a few hundred words; here are a real tokenizer, a real chat
template, a tied table of 49,152 rows and 30 trained layers. What the masks show is not tested: nothing is trained.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from tiny import tiny_model
from tiny_run import Squares
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from cores.checkpoints.load import load, load_model
from cores.checkpoints.probe import TOLERANCE, largest_difference, probe
from cores.checkpoints.runs.merging import merge
from cores.data.sample import Sample
from cores.modeling import CoresModel
from cores.modeling.generation import generate
from cores.modeling.prefix_cache import read_prefix
from cores.processing import CoresProcessor
from cores.processing.tokens import encode
from cores.recipe import Recipe, load_recipe
from cores.training.run import train
from cores.training.start import start
from cores.vocabulary import IMAGE

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import smollm

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(smollm.why_not()), reason=smollm.why_not())]

EXACT = 1e-4  # of the largest number, through 30 layers in fp32
RECIPE = """
model:
  bases: {bases}
  train: [lora, projector, embeddings, head, projection, refiner, mask_decoder]
lora: {{r: 4, alpha: 8, dropout: 0.0}}
prompt: {{format: chat, exemplars: none}}
data:
  sources: {{squares: [squares|train]}}
  questions_per_image: 2
trainer:
  max_steps: 2
  per_device_train_batch_size: 1
  learning_rate: 1e-3
  logging_steps: 1
  save_strategy: "no"
"""


@dataclass
class World:
    """The folder of bases, the language model's own answer and tokenizer, and what a recipe makes of the bases."""

    told: str
    plain: PreTrainedTokenizerBase
    recipe: Recipe
    model: CoresModel
    processor: CoresProcessor


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("real")
    language, tokenizer = smollm.load_language()
    told = answer_of(language, tokenizer, "What is the capital of France?")
    tiny = tiny_model()
    mllm = smollm.make_llava(language, tokenizer, tiny.config.mllm_config.vision_config)
    bases = folder / "bases"
    mllm.save_pretrained(bases / "mllm")
    tokenizer.save_pretrained(bases / "mllm")
    tiny.segmenter.save_pretrained(bases / "segmenter")
    (folder / "real.yaml").write_text(RECIPE.format(bases=bases))
    recipe = load_recipe(folder / "real.yaml")
    _, model, processor = start(recipe, 0)
    return World(told, tokenizer, recipe, model.eval(), processor)


@torch.no_grad()
def answer_of(language: Any, tokenizer: PreTrainedTokenizerBase, question: str) -> str:
    """What the language model alone says to a question, greedily."""
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    ids = language.generate(**asked, max_new_tokens=12, do_sample=False)[0]
    return str(tokenizer.decode(ids[asked["input_ids"].shape[1] :], skip_special_tokens=True))


def assert_close(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= EXACT * expected.abs().max()


def sample_of(sample: Sample, *numbers: int) -> Sample:
    """The same picture with some of its conversations."""
    return Sample(sample.image, sample.size, tuple(sample.conversations[n] for n in numbers))


def alone(world: World, ids: Tensor, pixels: dict[str, Tensor]) -> Tensor:
    """States (tokens, width) of one row by LLaVA's own forward: its masks, its positions, no cache."""
    llava = world.model.mllm.model
    return llava(input_ids=ids[None], **pixels, use_cache=False).last_hidden_state[0]


def test_the_language_is_real(world: World) -> None:
    assert "Paris" in world.told
    table = world.model.get_input_embeddings().weight
    assert world.model.get_output_embeddings().weight is table
    assert len(table) == len(world.processor.tokenizer) == world.model.config.mllm_config.text_config.vocab_size


def test_a_prompt_is_what_the_template_writes(world: World) -> None:
    processor, question, answer = world.processor, "Where is the kettle?", "It is on the stove."
    messages = [
        {"role": "system", "content": processor.writer.system(Random(0))},
        {"role": "user", "content": f"{IMAGE * processor.sizes.image_tokens}\n{question}"},
        {"role": "assistant", "content": answer},
    ]
    whole = encode(processor.tokenizer, processor.tokenizer.apply_chat_template(messages, tokenize=False))
    ours = [*processor.prefix().tolist(), *processor._conversation([(question, answer)]).ids]
    assert ours == whole[: len(ours)]
    assert processor.tokenizer.decode(whole[len(ours) :]) == "\n"
    assert processor.closing == [processor.tokenizer.eos_token_id]
    assert processor.writer.system(Random(0))
    assert "named SmolLM" not in processor.tokenizer.decode(ours), "its default system text is nobody's wish"


def test_new_tokens_swallow_the_blanks_around_and_leave_words_alone(world: World) -> None:
    tokenizer, words = world.processor.tokenizer, "An unseen wording: where does one pour 3 cups of tea?"
    assert encode(tokenizer, words) == world.plain.encode(words)
    loc, seg = world.processor.token_ids
    one = encode(tokenizer, "It is on [LOC] . Here: [SEG]")
    assert one == [*encode(tokenizer, "It is on"), loc, *encode(tokenizer, "."), *encode(tokenizer, " Here:"), seg]
    answer = world.processor.answer_ids().tolist()
    reading = world.processor.parse_answer(answer)
    assert [number for number in answer if number in (loc, seg)] == [loc, seg]
    assert reading.text.count("[LOC]") == reading.text.count("[SEG]") == 1


@torch.no_grad()
def test_packed_equals_separate(world: World) -> None:
    sample, losses, masks = Squares()[0], [], []
    packed = world.processor.collate([sample], 0, 0, [0], mode="val")
    together = world.model(**packed)
    segments = packed["segment_ids"][0]
    for n in range(len(sample.conversations)):
        batch = world.processor.collate([sample_of(sample, n)], 0, 0, [0], mode="val")
        found = world.model(**batch)
        own = batch["segment_ids"][0] == 1
        assert_close(together.hidden_states[0][segments == n + 1], found.hidden_states[0][own])
        expected = alone(world, batch["input_ids"][0], {"pixel_values": batch["pixel_values"]})
        assert_close(found.hidden_states[0], expected)
        supervised = int((batch["labels"] >= 0).sum())
        losses.append((float(found.text_loss), supervised))
        if len(batch["image_index"]):
            masks.append(found.low_res_logits)
    count = sum(n for _, n in losses)
    assert float(together.text_loss) == pytest.approx(sum(loss * n for loss, n in losses) / count, rel=1e-4)
    for level, logits in enumerate(together.low_res_logits):
        assert_close(logits, torch.cat([one[level] for one in masks]))


@torch.no_grad()
def test_generation_from_a_prefix_cache_is_uncached_generation(world: World) -> None:
    processor, model = world.processor, world.model
    picture = processor.picture(Squares()[1].image)
    prefix, pixels = processor.prefix(), processor.language_pixels([picture])
    questions = [processor.question(text) for text in ("cup", "What would you drink tea from, and why?")]
    said = generate(model, [read_prefix(model, pixels, prefix)] * len(questions), questions, processor.closing, 5)
    for question, one in zip(questions, said, strict=True):
        ids = torch.cat([prefix, question])
        for state in one.states:
            found = alone(world, ids, pixels)[-1]
            assert_close(state, found)
            ids = torch.cat([ids, model.mllm.logits(found[None]).argmax(-1)])
        told = ids[len(prefix) + len(question) :].tolist()
        assert one.ids == [number for number in told if number not in processor.closing]


def test_a_run_merges_into_the_same_model(world: World, tmp_path: Path) -> None:
    run = tmp_path / "run"
    trainer = train(world.recipe, run, Squares, device="cpu", quiet=True)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 2
    assert all(0 < loss < 50 for loss in losses)
    merged = merge(run, tmp_path / "model")
    assert merged.difference <= TOLERANCE
    unmerged = load_model(run / "checkpoint-2", torch.float32).eval()
    plain, processor = load(tmp_path / "model", device="cpu")
    assert largest_difference(probe(unmerged, processor), probe(plain, processor)) <= TOLERANCE
    assert largest_difference(probe(world.model, processor), probe(plain, processor)) > TOLERANCE, "it has learned"
    assert plain.get_output_embeddings().weight is plain.get_input_embeddings().weight
