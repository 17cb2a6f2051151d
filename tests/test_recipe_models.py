"""The recipes' models at their real sizes, on the meta device: as many parameters as were published, and what trains.

Sizes are in `checkpoints/published_sizes.py`; the totals here are those of the models' own pages and papers.
"""

import re
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
import tiny_families
import torch
from test_mllm_families import NO_FLEX
from tiny_bases import write_mllm, write_segmenter
from torch import nn
from transformers import (
    AutoModel,
    EdgeTamVideoConfig,
    EdgeTamVisionConfig,
    Sam2VideoConfig,
    Sam3VideoConfig,
)

from cores.checkpoints import published_sizes
from cores.data.fetch.catalog import read_catalog
from cores.modeling.mllms import FAMILIES, make_mllm, mllm_class
from cores.modeling.segmenters import SEGMENTERS, make_segmenter
from cores.processing.language_pixels import SQUARES
from cores.processing.picture_layouts import LAYOUTS
from cores.recipe import load_recipe
from cores.recipe_files import recipe_names, recipe_text
from cores.training.start import start
from cores.training.trainable import choose_parts, parts_of
from cores.words.grounding import GROUNDING

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import full_size
import memory

ROOT = Path(__file__).resolve().parents[1]
LATER = full_size.LATER
made = cache(full_size.full_size)
CLOSE = 0.002  # published totals are rounded to three digits


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def on_meta(make, *args) -> nn.Module:
    with torch.device("meta"):
        return make(*args)


PUBLISHED = {  # parameters of all tensors in the folder, in billions
    "Qwen/Qwen3-VL-4B-Instruct": 4.44,
    "Qwen/Qwen3-VL-8B-Instruct": 8.77,
    "Qwen/Qwen2.5-VL-7B-Instruct": 8.29,
    "HuggingFaceTB/SmolVLM-500M-Instruct": 0.507,
    "llava-hf/llava-onevision-qwen2-0.5b-ov-hf": 0.894,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_multimodal_llm_has_its_published_number_of_parameters(name: str) -> None:
    mllm = on_meta(make_mllm, published_sizes.MLLMS[name].config())
    assert count(mllm) == pytest.approx(PUBLISHED[name] * 1e9, rel=CLOSE)


def test_sam_and_sam_2_have_their_published_numbers_of_parameters() -> None:
    """SAM 2.1 was counted with what it keeps of videos, which no single picture needs."""
    sam = on_meta(make_segmenter, published_sizes.SEGMENTERS["facebook/sam-vit-huge"]())
    assert count(sam) == pytest.approx(641e6, rel=CLOSE)
    ours = on_meta(make_segmenter, published_sizes.SEGMENTERS["facebook/sam2.1-hiera-large"]())
    whole = on_meta(AutoModel.from_config, Sam2VideoConfig(vision_config=published_sizes.sam2_hiera_large()))
    assert count(whole) == pytest.approx(224.4e6, rel=CLOSE)
    assert_part_of(ours, whole)


def test_sam_3s_tracker_is_part_of_the_published_model() -> None:
    """848 M are its detector and the tracker's neck; the tracker's decoder and memory come to that."""
    ours = on_meta(make_segmenter, published_sizes.SEGMENTERS["facebook/sam3"]())
    whole = on_meta(AutoModel.from_config, Sam3VideoConfig())
    detector, neck, tracker = whole.detector_model, whole.tracker_neck, whole.tracker_model
    assert count(detector) + count(neck) == pytest.approx(848e6, rel=CLOSE)
    decoding = count(tracker.prompt_encoder) + count(tracker.mask_decoder) + tracker.no_memory_embedding.numel()
    assert count(ours) == count(detector.vision_encoder.backbone) + count(neck) + decoding


def test_edgetam_has_its_published_number_of_parameters() -> None:
    """With its trunk counted elsewhere: timm, which makes it, is an extra."""
    ours = on_meta(make_segmenter, published_sizes.SEGMENTERS["yonigozlan/EdgeTAM-hf"]())
    whole = on_meta(AutoModel.from_config, EdgeTamVideoConfig(vision_config=published_sizes.edgetam()))
    assert count(whole) == pytest.approx(13.9e6, rel=CLOSE)
    assert_part_of(ours, whole)


@pytest.mark.skipif(not (find_spec("timm") and find_spec("torchvision")), reason="the extra edgetam is not installed")
def test_edgetams_own_trunk_is_as_large_as_its_stand_in() -> None:
    from transformers import TimmWrapperConfig

    model_args = {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]}
    trunk = TimmWrapperConfig(architecture="repvit_m1", model_args=model_args)
    whole = on_meta(
        AutoModel.from_config, EdgeTamVideoConfig(vision_config=EdgeTamVisionConfig(backbone_config=trunk))
    )
    stand_in = on_meta(AutoModel.from_config, published_sizes.TrunkConfig())
    assert count(whole.vision_encoder.backbone) == count(stand_in)


def assert_part_of(ours: nn.Module, whole: nn.Module) -> None:
    """Every tensor of ours is one of the whole, by name and shape."""
    shapes = {name: value.shape for name, value in whole.state_dict().items()}
    assert {name: value.shape for name, value in ours.state_dict().items()}.items() <= shapes.items()


@pytest.mark.parametrize("recipe", LATER)
def test_every_part_that_a_recipe_names_is_there_and_trains(recipe: str) -> None:
    model, settings = made(recipe), load_recipe(recipe)  # a part that is not there is a warning, which fails
    assert all(p.is_meta for p in model.parameters())
    training = {name: p for name, p in model.named_parameters() if p.requires_grad}
    lora = {name for name in training if ".lora_" in name}
    others = {part: set() for part in settings.model.train if part != "lora"}
    for name in training.keys() - lora:
        found = [part for part in parts_of(model, name) if part in others]
        assert found, f"{name} trains and is in no part"
        for part in found:
            others[part].add(name)
    assert all(others.values()), others
    assert len({p.dtype for p in training.values()}) == 1


@pytest.mark.parametrize("recipe", LATER)
def test_lora_stands_beside_every_layer_that_is_named_and_no_other(recipe: str) -> None:
    model, settings = made(recipe), load_recipe(recipe)
    decoder = FAMILIES[model.config.mllm_config.model_type].decoder
    layers = model.mllm.text_config.num_hidden_layers
    places = [
        name.removesuffix(".lora_A.default") for name, _ in model.named_modules() if name.endswith("lora_A.default")
    ]
    assert all(name.startswith(f"mllm.{decoder}.layers.") for name in places)
    each = [name.rpartition(".")[2] for name in places]
    assert {target: each.count(target) for target in set(each)} == dict.fromkeys(settings.lora.targets, layers)


@pytest.mark.parametrize("recipe", LATER)
def test_grounding_tokens_have_rows(recipe: str) -> None:
    model = made(recipe)
    for table in (model.get_input_embeddings(), model.get_output_embeddings()):
        assert max(model.config.token_ids) < table.weight.shape[0]


@pytest.mark.parametrize("recipe", LATER)
def test_a_recipe_says_what_it_takes_and_whose_weights_they_are(recipe: str) -> None:
    """The head of the file: that nobody trained it, the estimate as it is computed, and the licences."""
    head = recipe_text(recipe).split("\nextends:")[0]
    shared, alone = (sum(memory.training(recipe, gpus).values()) / memory.GB for gpus in (8, 1))
    figures = (
        f"about {shared:.0f} GB a GPU on eight, {alone:.0f} on one" if shared < alone else f"about {alone:.0f} GB"
    )
    assert f"Estimate, nothing measured: {figures}, with pictures of 640 x 480" in head
    assert "Nobody has trained it yet" in head
    assert "Licences of the weights: Apache-2.0, " in head
    assert load_recipe(recipe).prompt.format == "chat"


PAPER = load_recipe("cores-7b")


@pytest.mark.parametrize("recipe", LATER)
def test_the_data_are_the_papers(recipe: str) -> None:
    settings = load_recipe(recipe)
    assert settings.data == PAPER.data
    assert settings.model.train == PAPER.model.train
    assert (settings.model.dtype, settings.prompt.exemplars) == ("bfloat16", "random")
    trainer, paper = settings.trainer, PAPER.trainer
    one_gpu = trainer["deepspeed"] is None
    assert pictures_a_step(trainer, 1 if one_gpu else 8) == pictures_a_step(paper, 8)


def pictures_a_step(trainer: dict, gpus: int) -> int:
    return gpus * trainer["per_device_train_batch_size"] * trainer["gradient_accumulation_steps"]


def test_every_licence_is_said() -> None:
    """docs/licences.md has a row for every base and every data set that a recipe names."""
    page = (ROOT / "docs" / "licences.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `([^`]+)` \| (.+?) \|", page, re.MULTILINE))
    for recipe in recipe_names():
        settings = load_recipe(recipe)
        bases = [name for name in (settings.model.mllm, settings.model.segmenter) if name]
        sources = [name.split("|")[0] for family in settings.data.sources.values() for name in family]
        ours = {name for name in sources if name.startswith("manifest:")} | {"scenes"}
        missing = {*bases, *sources} - ours - rows.keys()
        assert not missing, f"{recipe}: docs/licences.md says nothing of {', '.join(missing)}"
        catalog = read_catalog()
        assert all(rows[name] == catalog[name].license for name in rows.keys() & catalog.keys())


def test_every_family_has_something_to_begin_with() -> None:
    page = (ROOT / "docs" / "licences.md").read_text("utf-8")
    chapter = page.split("## Something of every family")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `([^`]+)` \|", chapter, re.MULTILINE)) == {*FAMILIES, *SEGMENTERS}


def test_the_table_of_families_says_what_they_do() -> None:
    """docs/checkpoints.md, row by row."""
    page = (ROOT / "docs" / "checkpoints.md").read_text("utf-8")
    rows = {}
    for name, *cells in re.findall(r"^\| `(\w+)` \| [^|]+" + r"\| ([^|]+) " * 5 + r"\|$", page, re.MULTILINE):
        rows[name] = tuple({"yes": True, "no": False}.get(cell, cell) for cell in cells)
    assert rows == {
        family: (
            mllm_class(family).packs,
            family not in NO_FLEX,
            family in SQUARES or LAYOUTS[family].pillow,
            "`llava_v1`" if family in SQUARES else "`chat`",
            family in GROUNDING,
        )
        for family in FAMILIES
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_the_papers_lora_targets_are_in_every_family_but_kimi(family: str) -> None:
    tiny = on_meta(make_mllm, tiny_families.FAMILIES[family].make_config())
    decoder = f"{FAMILIES[family].decoder}."
    names = {name.rpartition(".")[2] for name, _ in tiny.named_modules() if name.startswith(decoder)}
    expected = (
        {"q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj"} if family == "kimi_k25" else {"q_proj", "v_proj"}
    )
    assert expected <= names


@pytest.mark.parametrize("recipe", LATER)
def test_a_recipe_starts_on_bases_of_its_families(recipe: str, tmp_path: Path) -> None:
    """Tiny ones in place of those it names: its prompts, its levels and what it trains go with them."""
    config = made(recipe).config
    mllm = write_mllm(config.mllm_config.model_type, tmp_path / "mllm")
    segmenter = write_segmenter(config.segmenter_config.model_type, tmp_path / "segmenter")
    settings = load_recipe(recipe, [f"model.mllm={mllm}", f"model.segmenter={segmenter}"])
    _, model, processor = start(settings, seed=0)
    choose_parts(model, settings.model.train, settings.lora)
    assert (processor.prompt.format, processor.prompt.style, processor.prompt.exemplars) == ("chat", "paper", "random")
    assert processor.sizes.max_text_tokens == settings.prompt.max_text_tokens
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.bfloat16}
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
