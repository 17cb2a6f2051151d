"""The published program's numbers on its tiny random model, from ours: states, prompt tokens, masks, losses."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from shared import shared
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, SamConfig, SamMaskDecoderConfig, SamVisionConfig

from cores.checkpoints.published.keys import CLIP, PUBLISHED, ignored, inside, rename
from cores.geometry import restore
from cores.modeling import CoresConfig, CoresModel, CoresOutput

PUBLISHED_IMAGE = -200
PATCHES = 256
EPS = 1e-5  # of the LayerNorms of SAM's two-way transformer
CLIP_ALONE = inside(CLIP, "", "mllm.model.vision_tower.")  # the tower's own file


def load_published(folder: Path) -> CoresModel:
    """The model of a published checkpoint's folder, in fp32. Names are translated, nothing else."""
    published = json.loads((folder / "config.json").read_text())
    ids, sam = published["grounding"], published["sam"]
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
             "num_key_value_heads", "rms_norm_eps", "max_position_embeddings")  # fmt: skip
    vision = SamVisionConfig(
        hidden_size=sam["embed_dim"],
        num_hidden_layers=sam["depth"],
        num_attention_heads=sam["heads"],
        global_attn_indexes=sam["global_attn"],
        mlp_dim=4 * sam["embed_dim"],
    )
    config = CoresConfig(
        mllm_config=LlavaConfig(
            vision_config=CLIPVisionConfig(**json.loads((folder / "clip_config.json").read_text())),
            text_config=LlamaConfig(**{name: published[name] for name in names}),
            image_token_index=published["vocab_size"],  # owns no embedding row
            image_seq_length=PATCHES,
            projector="linear",
        ),
        segmenter_config=SamConfig(vision_config=vision, mask_decoder_config=SamMaskDecoderConfig(layer_norm_eps=EPS)),
        levels=[
            {"name": "location", "token": "[SEG_SEMA]", "token_id": ids["loc"]},
            {"name": "target", "token": "[SEG]", "token_id": ids["seg"]},
        ],
        refiner="none",
        style="published",
    )
    model = CoresModel(config)
    state = {}
    for file, table in (("model.safetensors", PUBLISHED), ("clip.safetensors", CLIP_ALONE)):
        for key, value in load_file(folder / file).items():
            if ignored(key) is None:
                state[rename(key, table)] = value.float()
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert [key for key in missing if ignored(key) is None] == []
    return model.eval()


def packed_batch(inputs: Any) -> dict[str, Any]:
    """The five conversations about two images as two packed rows."""
    rows: list[dict[str, list[int]]] = []
    positions: list[list[int]] = [[], []]
    for first, last in ((0, 3), (3, 5)):
        row: dict[str, list[int]] = {"input_ids": [], "segment_ids": [], "labels": []}
        for segment, number in enumerate(range(first, last), start=1):
            ids, labels = inputs[f"ids_{number}"].tolist(), inputs[f"labels_{number}"].tolist()
            after = ids.index(PUBLISHED_IMAGE) + 2  # behind the image's end token
            if segment == 1:
                prefix = ids[: after - 2] + [324] * PATCHES + ids[after - 1 : after]
                row["input_ids"] += prefix
                row["segment_ids"] += [0] * len(prefix)
                row["labels"] += [-100] * len(prefix)
            for level, token in enumerate((320, 321)):
                positions[level].append(len(row["input_ids"]) + ids[after:].index(token) - 1)
            row["input_ids"] += ids[after:]
            row["segment_ids"] += [segment] * len(ids[after:])
            row["labels"] += labels[after:]
        rows.append(row)
    longest = max(len(row["input_ids"]) for row in rows)
    filler = {"input_ids": 0, "segment_ids": -1, "labels": -100}
    batch: dict[str, Any] = {
        name: torch.tensor([row[name] + [value] * (longest - len(row[name])) for row in rows])
        for name, value in filler.items()
    }
    pixels = []
    for number, size in enumerate(inputs["resized"].tolist()):
        low = torch.from_numpy(inputs[f"sam_low{number}"])[None]
        full = F.interpolate(low, size, mode="bilinear", align_corners=False)
        pixels.append(F.pad(full, (0, 1024 - size[1], 0, 1024 - size[0])))
    truth = [torch.from_numpy(mask).bool() for number in (0, 1) for mask in inputs[f"gt{number}"]]
    return batch | {
        "token_positions": torch.tensor(positions),
        "image_index": torch.tensor([0, 0, 0, 1, 1]),
        "pixel_values": torch.from_numpy(inputs["clip_pixels"]),
        "segmenter_pixels": torch.cat(pixels),
        "truth": truth,
        "sizes": [tuple(size) for size in inputs["sizes"].tolist()],
        "resized": [tuple(size) for size in inputs["resized"].tolist()],
    }


@cache
def run() -> tuple[CoresModel, dict[str, Any], CoresOutput, Any]:
    folder = shared("golden/cores")
    model, batch = load_published(folder), packed_batch(np.load(folder / "inputs.npz"))
    with torch.no_grad():
        return model, batch, model(**batch), np.load(folder / "outputs.npz")


def agree(found: Tensor, expected: Any, part: float) -> None:
    """Largest difference at most `part` of the expected array's own largest value."""
    wanted = torch.from_numpy(np.asarray(expected)).float().reshape(found.shape)
    assert (found - wanted).abs().max() <= part * wanted.abs().max()


def test_states_and_prompt_tokens() -> None:
    model, batch, output, golden = run()
    for number in range(5):
        image, segment = (0, number + 1) if number < 3 else (1, number - 2)
        ids = batch["segment_ids"][image]
        mine = output.hidden_states[image][(ids == 0) | (ids == segment)]  # prefix, then this conversation
        agree(mine, golden["hidden_last"][number, : len(mine)], 1e-5)
        with torch.no_grad():
            agree(model.projection(mine), golden["prompt_proj"][number, : len(mine)], 1e-5)


@pytest.mark.parametrize("level", [0, 1])
def test_masks_of_both_levels(level: int) -> None:
    _, batch, output, golden = run()
    for image, masks in ((0, slice(0, 3)), (1, slice(3, 5))):
        low_res = output.low_res_logits[level][masks]
        agree(low_res, golden[f"low_res_{2 * image + level}"], 1e-5)
        full = restore(low_res, 1024, batch["resized"][image], batch["sizes"][image], "pad")
        agree(full, golden[f"mask_logits_{2 * image + level}"], 5e-4)


def test_losses() -> None:
    _, _, output, golden = run()
    config = run()[0].config
    weighted = {
        "loss": output.loss,
        "ce_loss": output.text_loss,
        "mask_bce_loss": config.bce_weight * output.bce_loss,
        "mask_dice_loss": config.dice_weight * output.dice_loss,
        "mask_loss": output.mask_loss,
    }
    for name, value in weighted.items():
        assert value.item() == pytest.approx(float(golden[name]), rel=1e-6), name
