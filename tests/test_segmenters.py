"""The contract of every segmenter: the family's own forward, on a flat axis of masks, trained as it is asked."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_model
from tiny_run import Squares, tiny_recipe
from tiny_segmenters import CONFIGS, native, sam3_tracker_config, tiny_segmenter
from tiny_tokenizer import tiny_tokenizer
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from transformers import Sam3TrackerVideoConfig, Sam3TrackerVideoModel

from cores.asking.asker import Asker
from cores.checkpoints.checking import check_static
from cores.checkpoints.configs import read_segmenter
from cores.checkpoints.load import load
from cores.checkpoints.published.exporting import export
from cores.checkpoints.save import save
from cores.checkpoints.shapes import SECOND_NAMES, second_names
from cores.cli.check import about
from cores.errors import CheckpointError
from cores.modeling.chain import run_chain
from cores.modeling.refiner import PaperRefiner
from cores.modeling.segmenters import edgetam, mask_decoder, segmenter_class
from cores.modeling.segmenters.base import Features
from cores.recipe import Part
from cores.segmenter_families import SEGMENTERS
from cores.training.start import start
from cores.training.trainable import choose_parts

INDEX = torch.tensor([0, 1, 0, 1, 1])  # five masks of two images, in no order


@pytest.fixture(scope="module", params=list(SEGMENTERS))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(kind: str) -> Any:
    return tiny_segmenter(kind)


def pixels(model: Any, images: int = 2) -> Tensor:
    return torch.randn(images, 3, model.image_size, model.image_size, generator=torch.Generator().manual_seed(1))


def far(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def reached(model: Any, loss: Tensor) -> set[str]:
    """Names of what a loss has a gradient for."""
    model.zero_grad()
    loss.backward()
    return {name for name, value in model.named_parameters() if value.grad is not None and value.grad.any()}


def trained(model: Any, *parts: str) -> set[str]:
    """Names of what trains with these parts."""
    begins = tuple(begin for part in parts for begin in model.parts[part])
    names = [name for name, _ in model.named_parameters() if name.startswith(begins)]
    return {name for name in names if not model.never_trained.search(name)}


@pytest.mark.parametrize("prompted", [False, True])
@torch.no_grad()
def test_decode_is_the_family_s_own_forward(kind: str, prompted: bool) -> None:
    """In double precision, so that nothing but rounding can differ."""
    theirs, model = native(CONFIGS[kind]()).double(), tiny_segmenter(kind).double()
    seen = pixels(model, 1).double()
    mask = torch.randn(1, model.mask_size, model.mask_size).double() if prompted else None
    given = {"multimask_output": False, "input_masks": None if mask is None else mask[None]}
    features, index = model.encode(seen), torch.tensor([0])

    boxes = torch.tensor([[10.0, 20.0, 61.5, 70.25]]).double()
    told = theirs(seen, input_boxes=boxes[None], **given)
    expected, rated = told.pred_masks[:, 0, 0], []
    assert expected.shape == (1, model.mask_size, model.mask_size)
    assert far(model.decode(features, model.embed_boxes(boxes), index, mask, rated), expected) < 1e-12
    assert far(rated[0], told.iou_scores[:, 0, 0]) < 1e-12  # its guess of its own IoU, too

    points, labels = torch.tensor([[[[30.0, 40.0], [5.0, 9.0]]]]).double(), torch.tensor([[[1, 0]]])
    expected = theirs(seen, input_points=points, input_labels=labels, **given).pred_masks[:, 0, 0]
    tokens = model.prompt_encoder._embed_points(points, labels, pad=True)[:, 0]
    assert far(model.decode(features, tokens, index, mask), expected) < 1e-12


@pytest.mark.parametrize("prompted", [False, True])
@torch.no_grad()
def test_many_masks_are_each_as_alone(kind: str, prompted: bool) -> None:
    """In double precision, so that nothing but rounding can differ."""
    model = tiny_segmenter(kind).double()
    features, tokens = model.encode(pixels(model)), torch.randn(5, 1, model.dim).double()
    masks = torch.randn(5, model.mask_size, model.mask_size).double() if prompted else None
    found = model.decode(features, tokens, INDEX, masks)
    first = torch.tensor([0])
    for number, image in enumerate(INDEX.tolist()):
        mask = None if masks is None else masks[number : number + 1]
        one = model.decode(features[image : image + 1], tokens[number : number + 1], first, mask)
        assert far(found[number], one[0]) < 1e-12
    assert min(far(found[0], other) for other in found[1:]) > 1e-2
    assert model.decode(features, tokens[:0], INDEX[:0]).shape == (0, model.mask_size, model.mask_size)


@torch.no_grad()
def test_what_is_kept_of_positions_follows_the_weights(kind: str) -> None:
    """Without gradients they are kept behind the projections; in double precision only rounding differs."""
    model = tiny_segmenter(kind).double()
    features, tokens = model.encode(pixels(model)), torch.randn(5, 1, model.dim).double()
    before = model.decode(features, tokens, INDEX)
    layer = model.mask_decoder.transformer.layers[0].cross_attn_token_to_image
    assert "_kept" in vars(layer)
    with torch.enable_grad():  # where nothing is kept
        assert far(model.decode(features, tokens, INDEX).detach(), before) < 1e-12
    layer.k_proj.weight.data.mul_(3)  # which no version counts
    changed = model.decode(features, tokens, INDEX)
    assert far(changed, before) > 1e-6
    with torch.enable_grad():
        assert far(model.decode(features, tokens, INDEX).detach(), changed) < 1e-12


@pytest.mark.parametrize("together", [1, 2])
@pytest.mark.parametrize("images", [1, 2])
def test_a_few_masks_and_cells_at_a_time_change_no_number(
    kind: str, images: int, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither masks nor gradients, in double precision; of this size a CPU would make all at once."""
    model, index = tiny_segmenter(kind).double(), INDEX % images
    with torch.no_grad():
        features = model.encode(pixels(model, images).double())
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randn(5, 1, model.dim, generator=generator).double().requires_grad_()
    prompts = torch.randn(5, model.mask_size, model.mask_size, generator=generator).double()

    def masks_and_gradients() -> list[Tensor]:
        model.zero_grad()
        tokens.grad = None
        found = model.decode(features, tokens, index) + model.decode(features, tokens, index, prompts)
        found.square().mean().backward()
        learned = [value.grad for value in model.parameters() if value.grad is not None]
        return [found.detach(), tokens.grad, *learned]

    expected = masks_and_gradients()
    cells = (model.mask_size // 4) ** 2
    monkeypatch.setattr(mask_decoder, "TOGETHER", together * cells * model.dim)
    monkeypatch.setattr(mask_decoder, "PIECE", cells // 3)
    calls, some = [], model.mask_decoder._some
    monkeypatch.setattr(model.mask_decoder, "_some", lambda *given: calls.append(len(given[0])) or some(*given))
    found = masks_and_gradients()
    assert len(calls) == 2 * {1: 5, 2: 3}[together]  # two calls of the decoder
    assert len(found) == len(expected) > 50
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


@torch.no_grad()
def test_features_are_indexed_by_picture(model: Any) -> None:
    seen, tokens = pixels(model, 3), torch.randn(2, 1, model.dim)
    all_of_them = model.encode(seen)
    chosen = all_of_them[torch.tensor([2, 0])]
    assert len(all_of_them) == 3
    assert len(chosen) == 2
    assert model.grid(chosen).shape[:2] == (2, model.dim)
    for mine, alone in zip((chosen.coarse, *chosen.fine), _maps(model.encode(seen[[2, 0]])), strict=True):
        assert far(mine, alone) < 2e-6
    both = Features.cat([all_of_them[2:], all_of_them[:1]])
    torch.testing.assert_close(both.coarse, chosen.coarse)
    found = model.decode(both, tokens, torch.tensor([0, 1]))
    torch.testing.assert_close(found, model.decode(all_of_them, tokens, torch.tensor([2, 0])), rtol=1e-5, atol=1e-5)


def _maps(features: Features) -> tuple[Tensor, ...]:
    return features.coarse, *features.fine


def test_gradients_reach_token_and_mask_prompt_and_all_that_trains(model: Any) -> None:
    """What the features hold comes before everything that trains with the decoder, and training changes no number."""
    with torch.no_grad():
        features = model.encode(pixels(model))
        for mine, learning in zip(_maps(features), _maps(model.train().encode(pixels(model))), strict=True):
            torch.testing.assert_close(learning, mine, rtol=0, atol=0)
    token = torch.randn(5, 1, model.dim, requires_grad=True)
    prompt = torch.randn(5, model.mask_size, model.mask_size, requires_grad=True)
    model.train()
    found = model.decode(features, token, INDEX) + model.decode(features, token, INDEX, prompt)
    names = reached(model, found.square().mean())
    model.eval()
    with torch.no_grad():
        again = model.decode(features, token, INDEX) + model.decode(features, token, INDEX, prompt)
    torch.testing.assert_close(found.detach(), again, rtol=1e-5, atol=1e-5)
    assert token.grad.abs().sum() > 0
    assert prompt.grad.abs().sum() > 0
    wanted = trained(model, "prompt_encoder", "mask_decoder")
    # what a softmax adds to all scores alike has no effect: biases of keys
    assert {name for name in wanted - names if not name.endswith("k_proj.bias")} == set()
    assert names - wanted <= {"shared_image_embedding.positional_embedding"}  # a constant, stored as a parameter
    assert len(wanted) > 50


def test_gradients_reach_all_of_the_image_encoder(model: Any) -> None:
    found = model.decode(model.encode(pixels(model)), torch.randn(5, 1, model.dim), INDEX)
    wanted = trained(model, "image_encoder")
    missing = wanted - reached(model, found.square().mean())
    assert {name for name in missing if not name.endswith("k_proj.bias")} == set()
    every = {name for name, _ in model.named_parameters() if not model.never_trained.search(name)}
    assert every == wanted | trained(model, "prompt_encoder", "mask_decoder")


def test_passes_change_no_number(model: Any) -> None:
    """Two levels and a refiner, in one pass and in several: the same masks and the same gradients, in training."""
    torch.manual_seed(0)
    refiner, model = PaperRefiner(model.dim).double(), deepcopy(model).double().train()
    features = model.encode(pixels(model).double())
    tokens = torch.randn(2, 5, model.dim, dtype=torch.float64)

    def run(most: int | None) -> tuple[list[Tensor], dict[str, Tensor]]:
        model.zero_grad()
        refiner.zero_grad()
        found = run_chain(model, refiner, features, tokens, INDEX, masks_per_pass=most)
        sum(level.square().mean() for level in found).backward(retain_graph=True)
        parts = [*model.named_parameters(), *refiner.named_parameters()]
        return found, {name: value.grad.clone() for name, value in parts if value.grad is not None}

    def kept(most: int | None) -> int:
        """Numbers that the decoder keeps for its gradients."""
        sizes: list[int] = []
        fixed = Features(features.coarse.detach(), tuple(one.detach() for one in features.fine))
        with saved_tensors_hooks(lambda value: sizes.append(value.numel()) or value, lambda value: value):
            run_chain(model, refiner, fixed, tokens, INDEX, masks_per_pass=most)
        return sum(sizes)

    assert kept(2) < kept(None) / 5
    (whole, expected), (passed, gradients) = run(None), run(2)
    for one, other in zip(whole, passed, strict=True):
        torch.testing.assert_close(one, other)
    assert expected.keys() == gradients.keys()
    for name, value in expected.items():
        torch.testing.assert_close(gradients[name], value, msg=name)


def test_a_table_row_is_a_class_of_its_family() -> None:
    for kind, config in CONFIGS.items():
        assert segmenter_class(kind).config_class is type(config())
    assert SEGMENTERS.keys() == CONFIGS.keys()


@torch.no_grad()
def test_sam3_uses_three_levels_and_its_no_memory_embedding() -> None:
    """As transformers' video model and the published program; transformers' image model loses the latter."""
    config = sam3_tracker_config(4)
    model = tiny_segmenter("sam3_tracker", config)
    parts = {name: getattr(config, name) for name in ("vision_config", "prompt_encoder_config", "mask_decoder_config")}
    stored = {name: part.to_dict() for name, part in parts.items()}
    video = Sam3TrackerVideoModel(Sam3TrackerVideoConfig(image_size=112, **stored))
    video.load_state_dict(model.state_dict(), strict=False)
    seen = pixels(model, 1)
    expected = video.eval().get_image_embeddings(seen)
    features = model.encode(seen)
    finest, finer, decoder = *features.fine, model.mask_decoder
    coarse = model.picture(features)
    for mine, theirs in zip([decoder.conv_s0(finest), decoder.conv_s1(finer), coarse], expected, strict=True):
        torch.testing.assert_close(mine, theirs)
    assert far(features.coarse, coarse) > 0.01
    with torch.enable_grad():
        loss = model.decode(model.encode(seen), torch.randn(1, 1, model.dim), torch.tensor([0])).square().mean()
        missing = trained(model, "image_encoder") - reached(model, loss)
    assert {name for name in missing if not name.endswith("k_proj.bias")} == set()


def test_a_chain_stands_on_every_segmenter(kind: str, tmp_path: Path) -> None:
    """From base folders by a recipe; two steps of training; saved, checked and loaded whole; asked."""
    bases = tmp_path / "bases"
    tiny_model().mllm.save_pretrained(bases / "mllm")
    tiny_tokenizer().save_pretrained(bases / "mllm")
    base = native(CONFIGS[kind]())
    base.save_pretrained(bases / "segmenter")
    recipe = tiny_recipe(tmp_path, model__masks_per_pass=2)
    _, built, processor = start(recipe, 0)
    assert (processor.sizes.segmenter, built.segmenter.fit) == (kind, SEGMENTERS[kind].fit)
    assert built.masks_per_pass == 2
    parts: list[Part] = ["projection", "refiner", "mask_decoder", "prompt_encoder", "image_encoder"]
    choose_parts(built, parts, recipe.lora)

    before = {name: value.clone() for name, value in built.state_dict().items()}
    learning = [value for value in built.parameters() if value.requires_grad]
    optimiser = torch.optim.SGD(learning, lr=0.1)
    batch = processor.collate([Squares()[0], Squares()[1]], seed=0, epoch=0, indices=[0, 1], mode="val")
    assert len(batch["image_index"]) > 2
    for _ in range(2):
        optimiser.zero_grad()
        built.train()(**batch).loss.backward()
        assert [name for name, value in built.named_parameters() if value.requires_grad and value.grad is None] == []
        optimiser.step()
    changed = {name for name, value in built.state_dict().items() if not torch.equal(value, before[name])}
    for part in ("vision_encoder", "mask_decoder", "prompt_encoder"):
        assert any(name.startswith(f"segmenter.{part}.") for name in changed)
    assert ("segmenter.no_memory_embedding" in changed) == (kind in ("sam2", "sam3_tracker", "edgetam"))

    save(built, processor, tmp_path / "model")
    facts = check_static(tmp_path / "model")
    assert second_names(facts.config) == (SECOND_NAMES if kind in ("sam", "sam_hq") else {})
    assert about(facts)["segmenter"].startswith(f"{kind}, ")
    loaded, again = load(tmp_path / "model")
    assert again.sizes == processor.sizes
    state = loaded.state_dict()
    assert [name for name, value in built.state_dict().items() if not torch.equal(value, state[name])] == []

    answers = []
    for model in (built.eval(), loaded):
        asker = Asker(model, processor)
        encoded = asker.encode_image(Squares()[2].image)
        (answer,) = asker.teacher_force(encoded, [("cup", "phrase")], [None])
        assert [level.shape for level in answer.low_res_logits] == [(1, 32, 32)] * 2
        assert [full.mask.shape for full in asker.full_size(encoded, answer.low_res_logits[-1])] == [encoded.size]
        answers.append(answer)
    for one, other in zip(*(answer.low_res_logits for answer in answers), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    if kind != "sam":
        with pytest.raises(CheckpointError, match=f"made of a llava and a {kind}, the published layout holds"):
            export(tmp_path / "model", tmp_path / "o")


def test_edgetam_is_refused_without_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(edgetam, "find_spec", lambda name: None)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "edgetam_video"}))
    with pytest.raises(CheckpointError, match=r"needs timm and torchvision: pip install 'cores\[edgetam\]'"):
        read_segmenter(tmp_path)


@pytest.mark.parametrize(
    ("said", "named"),
    [({"architecture": "hf-hub:somebody/model"}, "architecture 'hf-hub:somebody/model'"),
     ({"architecture": "repvit_m1", "model_args": {"checkpoint_path": "x.pt"}}, "model_args checkpoint_path")],
)  # fmt: skip
def test_a_trunk_that_would_be_fetched_is_refused(
    monkeypatch: pytest.MonkeyPatch, said: dict[str, Any], named: str
) -> None:
    monkeypatch.setattr(edgetam, "find_spec", lambda name: name)
    edgetam.check_trunk({"model_type": "timm_wrapper", "architecture": "repvit_m1.dist_in1k"})
    with pytest.raises(CheckpointError, match=named):
        edgetam.check_trunk({"model_type": "timm_wrapper", **said})
