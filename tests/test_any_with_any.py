"""Every multimodal LLM with every segmenter, by the ordinary path: a recipe, two steps, a merged model, an answer.

The fast suite takes each family once; the whole table is among the slow tests.
"""

import json
import shutil
from itertools import product
from pathlib import Path

import pytest
import torch
from tiny_bases import BUILT, CONFIGS, write_mllm, write_segmenter
from tiny_run import RECIPE, Squares

import cores
from cores.checkpoints.checking import check_static
from cores.checkpoints.probe import probe
from cores.checkpoints.runs.bases import load_mllm
from cores.checkpoints.runs.merging import merge
from cores.cli.check import about
from cores.errors import CheckpointError
from cores.evaluation.metrics import MaskMetrics
from cores.inference.options import Options
from cores.modeling.mllms import mllm_class
from cores.recipe import Recipe, load_recipe
from cores.training.run import train

SEGMENTERS = list(CONFIGS)
# every refiner, number of levels and style meets every kind of family somewhere in the table
WAYS = [("paper", 2, "paper"), ("region", 3, "paper"), ("published", 2, "published"), ("none", 1, "lisa")]
TABLE = [(*pair, WAYS[number % len(WAYS)]) for number, pair in enumerate(product(BUILT, SEGMENTERS))]
ONCE = [
    row for number, row in enumerate(TABLE) if number % len(SEGMENTERS) == number // len(SEGMENTERS) % len(SEGMENTERS)
]
OTHERS = [row for row in TABLE if row not in ONCE]
CHANGES = """
model:
  mllm: {mllm}
  segmenter: {segmenter}
  refiner: {refiner}
  levels: {levels}
  style: {style}
  train: [lora, projector, embeddings, head, projection, refiner, mask_decoder]
prompt: {{exemplars: fixed}}
"""


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bases")


def base(folder: Path, family: str, write) -> Path:
    """Made once, for all tests of this file."""
    return folder / family if (folder / family).exists() else write(family, folder / family)


def recipe_of(mllm: Path, segmenter: Path, folder: Path, way: tuple[str, int, str], *settings: str) -> Recipe:
    refiner, levels, style = way
    file = folder / "recipe.yaml"
    text = RECIPE.split("lora:", 1)[1].replace("prompt: {{format: plain, exemplars: none}}\n", "")
    head = CHANGES.format(mllm=mllm, segmenter=segmenter, refiner=refiner, levels=levels, style=style)
    if levels == 1:
        head = head.replace("refiner, mask", "mask")
    file.write_text(head + ("lora:" + text).format())
    changes = ["trainer.max_steps=2", "trainer.save_strategy=steps", "trainer.save_steps=2", *settings]
    return load_recipe(file, changes)


def walk(mllm: Path, segmenter: Path, folder: Path, way: tuple[str, int, str]) -> None:
    recipe = recipe_of(mllm, segmenter, folder, way)
    run = folder / "run"
    trained = train(recipe, run, lambda name, directory: Squares(name), quiet=True)
    assert trained.state.global_step == 2
    assert all(torch.isfinite(torch.tensor(line["loss"])) for line in trained.state.log_history if "loss" in line)
    sample = Squares()[0]
    before = cores.load(run).segment(sample.image, ["the cup", "something else that is asked"], max_new_tokens=4)
    merge(run, folder / "model")
    said = about(check_static(folder / "model"))["language model"]
    assert ("cannot pack" in said) == (not mllm_class(mllm.name).packs)
    model = cores.load(folder / "model")
    after = model.segment(sample.image, ["the cup", "something else that is asked"], max_new_tokens=4)
    assert [one.answer for one in before] == [one.answer for one in after]
    forced = cores.load(run), model
    low = [one_forced(m, sample.image) for m in forced]
    torch.testing.assert_close(low[0], low[1], rtol=1e-4, atol=1e-4)
    assert low[0].isfinite().all()


def one_forced(model, image) -> torch.Tensor:
    """The last level's low-res logits of the usual answer: a model of two steps says no grounding token by itself."""
    encoded = model.encode(image)
    asker = model._asker(Options())
    (answer,) = asker.teacher_force(encoded, [("the cup", "phrase")], [None])
    return answer.low_res_logits[-1]


@pytest.mark.parametrize(("mllm", "segmenter", "way"), ONCE)
def test_a_family_trains_merges_and_answers(mllm: str, segmenter: str, way, bases: Path, tmp_path: Path) -> None:
    walk(base(bases, mllm, write_mllm), base(bases, segmenter, write_segmenter), tmp_path, way)


@pytest.mark.slow
@pytest.mark.parametrize(("mllm", "segmenter", "way"), OTHERS)
def test_any_with_any(mllm: str, segmenter: str, way, bases: Path, tmp_path: Path) -> None:
    walk(base(bases, mllm, write_mllm), base(bases, segmenter, write_segmenter), tmp_path, way)


@pytest.mark.parametrize(
    ("mllm", "segmenter"), [("qwen3_vl", "sam2"), ("gemma4", "sam3_tracker"), ("qwen3_5", "edgetam")]
)
def test_frozen_weights_in_half_precision(mllm: str, segmenter: str, bases: Path, tmp_path: Path) -> None:
    """As the recipes of real sizes train: what trains is in float32, and an evaluation meets the mixture of both."""
    asked = []

    def evaluate(model, processor, rank, world) -> MaskMetrics:
        asked.append(probe(model, processor))
        assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
        assert {p.dtype for p in model.segmenter.vision_encoder.parameters()} == {torch.bfloat16}
        return MaskMetrics()

    folders = base(bases, mllm, write_mllm), base(bases, segmenter, write_segmenter)
    half = ("model.dtype=bfloat16", "trainer.bf16=true", "trainer.eval_strategy=steps", "trainer.eval_steps=2")
    recipe = recipe_of(*folders, tmp_path, WAYS[0], *half)
    train(recipe, tmp_path / "run", lambda name, directory: Squares(name), evaluate=evaluate, device="cpu", quiet=True)
    assert asked
    model = cores.load(tmp_path / "run", device="cpu", dtype="bfloat16")
    assert one_forced(model, Squares()[0].image).isfinite().all()


HUGE = {
    "a million blocks": (("vision_config", "depth"), 10**6, "vision_config.depth: found 1000000, but the files hold"),
    "more turns than there are numbers": (
        ("text_config", "rope_parameters", "partial_rotary_factor"),
        10**9,
        r"a model of it has [\d,]{13,} numbers, the files hold",
    ),
    "no text model": (("text_config",), None, r"a model of it has [\d,]{13,} numbers, the files hold"),
}


@pytest.mark.parametrize("what", HUGE)
def test_what_its_files_cannot_hold_is_refused_before_it_is_made(what: str, bases: Path, tmp_path: Path) -> None:
    path, value, said = HUGE[what]
    folder = shutil.copytree(base(bases, "qwen3_5", write_mllm), tmp_path / "mllm")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    part = config
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = value
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(CheckpointError, match=said):
        load_mllm(folder)
