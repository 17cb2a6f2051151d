"""benchmarks/parity.py on folders of the golden kind: the plain form (stored), the refiner form and LISA (made here).

What is made here is computed as the published programs do it: one conversation, one image and one mask at a time, with
transformers' modules and torch's own attention, none of our chain, packing, losses or refiner.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published import added_tokens, published_config, published_model, published_state
from safetensors.torch import load_file, save_file
from shared import shared
from torch import Tensor
from torch.nn import functional as F

from cores.checkpoints.published.keys import CLIP, rename
from cores.modeling import CoresModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import parity

SIZES, RESIZED = [(48, 64), (48, 64)], [(48, 64), (48, 64)]  # equal: images are told apart by their place
MASKS = (2, 1)
BEFORE, AFTER = [1, 40, 41, 42], [43, 44, 45]
FIRST_ANSWER = 3  # tokens of AFTER, which are not supervised


def conversation(model: CoresModel, number: int) -> tuple[list[int], list[int]]:
    marks = added_tokens(len(model.config.levels))
    told = [50 + number, *(t for token in model.config.token_ids for t in (token, 60)), 2]
    ids = [*BEFORE, marks["<im_start>"], -200, marks["<im_end>"], *AFTER, *told]
    return ids, [-100] * (len(ids) - len(told)) + told


def one_state(model: CoresModel, ids: list[int], pixels: Tensor) -> Tensor:
    """(positions, width) of one conversation, by the modules of LLaVA."""
    llava = model.mllm.model
    seen = llava.vision_tower(pixels, output_hidden_states=True).hidden_states[-1][:, 1:]
    at, embed = ids.index(-200), llava.language_model.embed_tokens
    parts = [embed(torch.tensor(ids[:at])), llava.multi_modal_projector(seen)[0], embed(torch.tensor(ids[at + 1 :]))]
    states: Tensor = llava.language_model(inputs_embeds=torch.cat(parts)[None], use_cache=False).last_hidden_state[0]
    return states


def one_mask(model: CoresModel, features: Tensor, token: Tensor, prompt: Tensor | None) -> Tensor:
    """(1, 1, H, W) low-res logits of one prompt token on one image's features."""
    sam = model.segmenter
    if prompt is None:
        dense = sam.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1).expand_as(features)
    else:
        dense = sam.prompt_encoder.mask_embed(prompt)
        features_and_average = average(features, prompt)
        token = refined(model, token, features_and_average) if model.refiner is not None else token
    low, _ = sam.mask_decoder(
        image_embeddings=features,
        image_positional_embeddings=sam.get_image_wide_positional_embeddings(),
        sparse_prompt_embeddings=token[None, None, None],
        dense_prompt_embeddings=dense,
        multimask_output=False,
    )
    return low[:, 0]


def average(features: Tensor, prompt: Tensor) -> Tensor:
    """Masked average as the published program has it: pooled, the mask and its area in bfloat16."""
    inside = F.interpolate((prompt > 0).float(), features.shape[-2:], mode="bilinear", align_corners=False)
    inside = inside.bfloat16()
    cells = features.shape[-1] * features.shape[-2]
    area = F.avg_pool2d(inside, features.shape[-2:]) * cells + 0.0005
    return (F.avg_pool2d(features * inside, features.shape[-2:]) * cells / area)[:, :, 0, 0]


def refined(model: CoresModel, token: Tensor, found: Tensor) -> Tensor:
    """h + LN(h + attention(h, MAP)), by torch's attention with its query and key."""
    attention, norm = model.refiner.multihead_attn, model.refiner.norm
    query = token[None, None]
    return (query + norm(query + attention(query, found[None], found[None], need_weights=False)[0]))[0, 0]


def write_golden(folder: Path, model: CoresModel) -> Path:
    """A folder of the golden kind, computed the published way."""
    folder.mkdir()
    levels, generator = len(model.config.levels), torch.Generator().manual_seed(3)
    inputs: dict[str, Any] = {"sizes": np.array(SIZES), "resized": np.array(RESIZED)}
    pixels = torch.randn(2, 3, 32, 32, generator=generator)
    inputs["clip_pixels"] = pixels.numpy()
    outputs: dict[str, Any] = {}
    calls: dict[tuple[int, int], list[Tensor]] = {}
    states, projected, texts, full = [], [], [], []
    number = 0
    for image, count in enumerate(MASKS):
        low = torch.randn(3, 12, 12, generator=generator)
        inputs[f"sam_low{image}"] = low.numpy()
        truth = torch.rand(count, *SIZES[image], generator=generator) > 0.6
        inputs[f"gt{image}"] = truth.numpy().astype(np.uint8)
        resized = F.interpolate(low[None], RESIZED[image], mode="bilinear", align_corners=False)
        features = model.segmenter.vision_encoder(F.pad(resized, (0, 0, 0, 64 - 48))).last_hidden_state
        for mask in truth:
            ids, labels = conversation(model, number)
            inputs[f"ids_{number}"], inputs[f"labels_{number}"] = np.array(ids), np.array(labels)
            state = one_state(model, ids, pixels[image : image + 1])
            tokens = model.projection(state)
            states.append(state)
            projected.append(tokens)
            supervised = torch.tensor([-100] * 15 + labels)  # 16 positions for one marker
            texts.append((model.mllm.lm_head(state)[:-1], supervised[1:]))
            prompt = None
            for level, token in enumerate(model.config.token_ids):
                prompt = one_mask(model, features, tokens[ids.index(token) + 15 - 1], prompt)
                calls.setdefault((image, level), []).append(prompt)
            whole = F.interpolate(prompt, (64, 64), mode="bilinear", align_corners=False)[..., :48, :64]
            full.append((whole[0, 0], mask.float()))
            number += 1
    order = sorted(calls) if model.refiner is None else sorted(calls, key=lambda call: call[::-1])
    for place, call in enumerate(order):
        low = torch.cat(calls[call])
        outputs[f"low_res_{place}"] = low.numpy()
        upscaled = F.interpolate(low, (64, 64), mode="bilinear", align_corners=False)[..., :48, :64]
        outputs[f"mask_logits_{place}"] = upscaled.half().numpy()
    for name, rows in (("hidden_last", states), ("prompt_proj", projected)):
        outputs[name] = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=7.0).numpy()
    twice = 2.0 if model.refiner is not None else 1.0
    ce = F.cross_entropy(torch.cat([t[0] for t in texts]), torch.cat([t[1] for t in texts]))
    bce = twice * 2.0 * sum(F.binary_cross_entropy_with_logits(*pair) for pair in full) / len(full)
    dice = twice * 0.5 * sum(one_dice(*pair) for pair in full) / len(full)
    losses = {"ce_loss": ce, "mask_bce_loss": bce, "mask_dice_loss": dice, "mask_loss": bce + dice}
    outputs |= {name: np.float64(value) for name, value in (losses | {"loss": ce + bce + dice}).items()}
    np.savez(folder / "inputs.npz", **inputs)
    np.savez(folder / "outputs.npz", **outputs)

    ids = added_tokens(levels)
    grounding = {
        "loc": ids.get("[SEG_SEMA]"),
        "seg": ids["[SEG]"],
        "im_start": ids["<im_start>"],
        "im_end": ids["<im_end>"],
    }
    (folder / "config.json").write_text(json.dumps(published_config(model) | {"grounding": grounding}))
    (folder / "clip_config.json").write_text(json.dumps(model.config.mllm_config.vision_config.to_dict()))
    save_file(
        {name: value.contiguous() for name, value in published_state(model).items()}, folder / "model.safetensors"
    )
    tower = model.mllm.model.vision_tower.state_dict()
    clip = {str(rename(name, CLIP, back=True)): value.half().contiguous() for name, value in tower.items()}
    save_file(clip, folder / "clip.safetensors")
    return folder


def one_dice(logits: Tensor, truth: Tensor, scale: float = 1000.0, eps: float = 1e-6) -> Tensor:
    share = logits.sigmoid()
    both = (share / scale * truth).sum()
    return 1 - (2 * both + eps) / ((share / scale).sum() + (truth / scale).sum() + eps)


@pytest.fixture(
    scope="module", params=[(2, "published", "linear"), (1, "none", "mlp2x_gelu")], ids=["refiner", "lisa"]
)
def golden(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with torch.no_grad():
        return write_golden(tmp_path_factory.mktemp("golden") / "folder", published_model(*request.param))


def test_a_folder_made_the_published_way_is_met(golden: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert parity.main([str(golden)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.endswith("ok") for line in lines) == len(np.load(golden / "outputs.npz").files)


@pytest.mark.parametrize(
    "key", ["model.text_hidden_fcs.0.2.bias", "model.visual_model.mask_decoder.mask_tokens.weight"]
)
def test_one_changed_tensor_is_seen(
    golden: Path, key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in golden.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    state = load_file(tmp_path / "model.safetensors")
    state[key] = state[key] * 1.05
    save_file(state, tmp_path / "model.safetensors")
    assert parity.main([str(tmp_path)]) == 1
    assert "low_res_0" in "".join(line for line in capsys.readouterr().out.splitlines() if line.endswith("BEYOND"))


def test_the_stored_model_is_met() -> None:
    assert parity.main([str(shared("golden/cores"))]) == 0


def test_the_stored_tokens_are_met_and_a_changed_one_is_seen(tmp_path: Path) -> None:
    folder = shared("golden/tokens")
    assert parity.main([str(folder)]) == 0
    cases = json.loads((folder / "cases.json").read_text())
    cases[3]["ids"][7] += 1
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    (tmp_path / "tokenizer.model").write_bytes((folder / "tokenizer.model").read_bytes())
    assert parity.main([str(tmp_path)]) == 1
