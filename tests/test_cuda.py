"""On a CUDA device: a step waits for nothing, and the numbers are the CPU's.

Only what is in the repository is used: `pytest -m cuda` on any machine with a GPU.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.utils import send_to_device
from test_packed_equals_separate import batch, conversation
from tiny import tiny_config, tiny_model
from tiny_run import Squares, tiny_recipe
from torch.utils.data._utils.pin_memory import pin_memory

import cores
from cores.modeling import CoresModel, packed_attention
from cores.modeling.packing import supervised_places
from cores.recipe import PAPER_PARTS, LoraSection
from cores.scenes.source import open_scenes
from cores.training.run import train
from cores.training.trainable import choose_parts
from cores.training.trainer import CoresTrainer

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
SIZES = [(40, 64), (64, 50)]
QUESTIONS = {  # lengths of the questions about each picture
    "two pictures": ((3, 9, 5), (7, 4)),
    "one picture": ((6,),),
    "more masks than a pass": (tuple(range(2, 21)),),
    "no masks": ((4, 8), (5,)),
}


@pytest.fixture(autouse=True)
def _fp32_is_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@contextmanager
def waiting_is_an_error() -> Iterator[None]:
    """Inside, an operation that makes the host wait for the device raises RuntimeError."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def given(kind: str) -> dict[str, Any]:
    """A batch of the forward's arguments as the collator gives them, on the CPU; where masks are, one has no location
    and one picture has pixels that are ignored."""
    rng = torch.Generator().manual_seed(1)
    words_only = kind == "no masks"
    rows = [[conversation(rng, n, words_only) for n in lengths] for lengths in QUESTIONS[kind]]
    found = batch(
        rows, torch.randn(len(rows), 3, 32, 32, generator=rng), torch.randn(len(rows), 3, 64, 64, generator=rng)
    )
    of_mask = found["image_index"].tolist()
    truth = [torch.rand(SIZES[row], generator=rng) > 0.6 for row in of_mask]
    places = supervised_places(found["labels"])
    return found | {
        "truth": truth,
        "location_truth": [None, *truth[1:]] if truth else [],
        "ignore": [torch.rand(SIZES[0], generator=rng) > 0.9, None][: len(rows)],
        "sizes": SIZES[: len(rows)],
        "resized": [(40, 64), (64, 50)][: len(rows)],
        "supervised": places,
        "rows": of_mask,
        "counts": {"tokens": len(places), "masks": len(truth), "locations": max(0, len(truth) - 1)},
    }


def on_device(given: dict[str, Any]) -> dict[str, Any]:
    """Copied as the Trainer does it: from pinned memory, without waiting."""
    moved: dict[str, Any] = send_to_device(pin_memory(given), "cuda", non_blocking=True)
    return moved


def windowed_model(**config: Any) -> CoresModel:
    """The tiny model with a layer of SAM's encoder in windows; the other sees the whole picture."""
    made = tiny_config(**config)
    vision = made.segmenter_config.vision_config
    vision.window_size, vision.global_attn_indexes = 4, [1]
    return tiny_model(made)


def training_model(how: str) -> CoresModel:
    """The same, ready to train: every part of it, or the paper's, in one of the ways that a recipe may ask for."""
    model = windowed_model(location_loss=0.5, loss_resolution="low" if how == "low resolution" else "original").train()
    if how == "every part":
        model.requires_grad_(True)
    else:
        choose_parts(model, PAPER_PARTS, LoraSection(r=2, dropout=0.1))
    model.checkpoint_decoder = how == "checkpointed"
    return model


@pytest.mark.parametrize("kind", QUESTIONS)
@pytest.mark.parametrize("how", ["the paper's parts", "every part", "bf16", "low resolution", "checkpointed"])
def test_a_step_waits_for_nothing(kind: str, how: str) -> None:
    model = training_model(how)
    if how == "checkpointed":
        model.activation_checkpointing_enable()
    model.to("cuda")
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)

    def step() -> torch.Tensor:
        with torch.autocast("cuda", torch.bfloat16, enabled=how == "bf16"):
            loss: torch.Tensor = model(**on_device(given(kind))).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        return loss.detach()

    step()  # libraries begin, and what depends on no input is made
    with waiting_is_an_error():
        loss = step()
    assert loss.isfinite()


def test_the_trainers_step_waits_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the copy of a batch to the gradients. Later it waits once: is the loss a number?"""
    steps = []
    get, train_on = CoresTrainer.get_batch_samples, CoresTrainer.training_step

    def get_batch_samples(self: CoresTrainer, *args: Any, **kwargs: Any) -> Any:
        with waiting_is_an_error() if steps else torch.enable_grad():
            return get(self, *args, **kwargs)

    def training_step(self: CoresTrainer, *args: Any, **kwargs: Any) -> Any:
        with waiting_is_an_error() if steps else torch.enable_grad():
            steps.append(train_on(self, *args, **kwargs))
        return steps[-1]

    monkeypatch.setattr(CoresTrainer, "get_batch_samples", get_batch_samples)
    monkeypatch.setattr(CoresTrainer, "training_step", training_step)
    train(tiny_recipe(tmp_path, trainer__report_to="none"), tmp_path / "run", Squares, device="cuda", quiet=True)
    assert len(steps) == 4
    assert torch.stack(steps).isfinite().all()


@pytest.mark.parametrize("kind", QUESTIONS)
def test_losses_and_masks_are_the_cpus(kind: str) -> None:
    model, asked = windowed_model(location_loss=0.5), given(kind)
    with torch.no_grad():
        expected = model(**asked)
        found = model.to("cuda")(**on_device(asked))
        with torch.autocast("cuda", torch.bfloat16):
            coarse = model(**on_device(asked))
    names = ("loss", "text_loss", "mask_loss", "bce_loss", "dice_loss")
    for name in names:
        torch.testing.assert_close(getattr(found, name).cpu(), getattr(expected, name), rtol=1e-4, atol=1e-4)
        assert getattr(coarse, name).isfinite()
    for mine, its in zip(found.low_res_logits, expected.low_res_logits, strict=True):
        torch.testing.assert_close(mine.cpu(), its, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("attention", ["eager", "sdpa", "sdpa by conversations"])
def test_packed_equals_separate(attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    attention, _, by_conversations = attention.partition(" ")
    if by_conversations:  # however little it saves
        monkeypatch.setattr(packed_attention, "SAVES", 0)
        monkeypatch.setattr(packed_attention, "WORTH_A_WAIT", 0)
    model = tiny_model()
    model.set_attn_implementation(attention)
    rng = torch.Generator().manual_seed(1)
    talks = [conversation(rng, n) for n in (3, 9, 5)]
    pixels, big = torch.randn(1, 3, 32, 32, generator=rng), torch.randn(1, 3, 64, 64, generator=rng)
    model.to("cuda")
    with torch.no_grad():
        together = model(**on_device(batch([talks], pixels, big)))
        rows = batch([[talk] for talk in talks], pixels.repeat(3, 1, 1, 1), big.repeat(3, 1, 1, 1))
        apart = model(**on_device(rows))
    for mine, its in zip(together.low_res_logits, apart.low_res_logits, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(together.text_loss, apart.text_loss, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_compiled_flex_attention_is_the_dense_one() -> None:
    """States and gradients, as the lengths of rows change. Its kernels want heads of 16 at least."""
    config = tiny_config()
    text = config.mllm_config.text_config
    text.num_attention_heads, text.num_key_value_heads, text.head_dim = 2, 2, 16
    model = tiny_model(config).to("cuda")
    for kind in ("two pictures", "one picture", "more masks than a pass"):
        asked = on_device(given(kind))
        real = asked["segment_ids"] >= 0
        found = []
        for attention in ("sdpa", "flex_attention"):
            model.mllm.model.language_model.set_attn_implementation(attention)
            assert model.mllm.text_config._attn_implementation == attention
            model.zero_grad()
            output = model(**asked)
            output.loss.backward()
            weight = model.mllm.model.language_model.layers[0].self_attn.q_proj.weight
            found.append((output.hidden_states[real].detach(), weight.grad.clone()))
        for mine, its in zip(found[1], found[0], strict=True):
            torch.testing.assert_close(mine, its, rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_a_compiled_mask_decoder_is_the_eager_one() -> None:
    """Masks of both levels and the gradient of their tokens, for changing numbers of masks."""
    plain, compiled = windowed_model().to("cuda"), windowed_model().to("cuda")
    compiled.segmenter.mask_decoder.compile()
    with torch.no_grad():
        features = plain.encode(torch.randn(2, 3, 64, 64, device="cuda"))
    for index in ([0], [0, 1, 1], [1, 0, 0, 1, 0]):
        tokens = torch.randn(2, len(index), plain.segmenter.dim, device="cuda", requires_grad=True)
        found = []
        for model in (plain, compiled):
            masks = model.segment(features, tokens, torch.tensor(index, device="cuda"))
            (gradient,) = torch.autograd.grad(sum(mask.square().mean() for mask in masks), tokens)
            found.append((*masks, gradient))
        for mine, its in zip(found[1], found[0], strict=True):
            torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-4)


def test_it_answers_as_on_the_cpu() -> None:
    """In fp32; of two wordings that it was taught as equals, rounding may choose the other."""
    sample = open_scenes("test", n=6)[3]
    queries = [one.turns[0].query for one in sample.conversations]
    found, expected = (
        cores.load(device=device, dtype="float32").segment(sample.image, queries) for device in ("cuda", "cpu")
    )
    for mine, its in zip(found, expected, strict=True):
        assert mine.status == its.status
        assert (mine.mask == its.mask).mean() > 0.999
