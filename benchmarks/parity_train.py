"""Does our model learn as the published program does? The steps of a stored training, taken again by parity.py.

A folder holds a model and a CLIP in the published layout, LoRA's first matrices, the micro-batches as ids, labels and
masks over pictures in data/ (its own, or that of a golden folder beside it), and what the published program computed:
losses, norms of gradients, final weights. The model goes through `cores convert`; AdamW, clipping and rates are the
ones that its README states, and each micro-batch's losses are its own means (`loss_normalization: micro`).

Legend: conversations = rows of a batch, each of one picture; part = a group of trained tensors.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from cores import masks
from cores.checkpoints.load import load_model
from cores.checkpoints.published.conversion import convert
from cores.checkpoints.published.keys import PUBLISHED, rename
from cores.modeling import CoresModel, CoresOutput
from cores.modeling.segmenters.base import Features
from cores.processing import CoresProcessor
from cores.processing.tokens import IMAGE_PLACE, UNSUPERVISED
from cores.recipe import LoraSection
from cores.training.trainable import choose_parts

LOSSES, NORM, NORMS, VALUES, SIZES = 2e-6, 1e-5, 2e-5, 2e-6, 1e-6  # relative, but for the final values
PREFIX = "base_model.model."
SHARED = Path(__file__).resolve().parents[2] / "shared" / "golden" / "train"
RATE, WARM, STEPS = 3e-4, 4, 12

Compared = tuple[str, float, float]  # name, difference, tolerance


def compare_training(folder: Path) -> Iterator[Compared]:
    """Every step's losses and norms, then every tensor that trained: the largest difference of each kind."""
    expected = json.loads((folder / "expected.json").read_text("utf-8"))
    batches = json.loads((folder / "micro_batches.json").read_text("utf-8"))
    model, processor = prepare(folder, expected["program"])
    pictures = pictures_of(folder, batches[0][0]["image"])
    trained = {name: p for name, p in published_names(model).items() if p.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=RATE, betas=(0.9, 0.95), eps=1e-8, weight_decay=0)
    every = expected["accumulation"]
    for number, wanted in enumerate(expected["steps"]):
        rate = RATE * (number / WARM if number < WARM else (STEPS - number) / (STEPS - WARM))
        worst = abs(rate - wanted["lr"]) / RATE
        for at, losses in enumerate(wanted["micro"]):
            output = model(**batch_of(model, processor, pictures, batches[(number * every + at) % len(batches)]))
            (output.loss / every).backward()
            found = losses_of(model, output)
            worst = max(worst, *(relative(found[name], value) for name, value in losses.items()))
        yield f"step {number}: rate and losses", worst, LOSSES
        parts = {part: norm_of(trained, part) for part in wanted["grad_norms"]}
        yield f"step {number}: norm of the gradient", relative(norm_of(trained), wanted["grad_norm"]), NORM
        apart = max(relative(parts[part], value) for part, value in wanted["grad_norms"].items())
        yield f"step {number}: norms of its parts", apart, NORMS
        nn.utils.clip_grad_norm_(trained.values(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
    yield from compare_final(published_names(model), expected["final"])


def compare_final(found: Mapping[str, Tensor], expected: Mapping[str, Any]) -> Iterator[Compared]:
    """Norms and some values of every tensor; those whose gradient is rounding alone say `compare: false`."""
    values, sizes = 0.0, 0.0
    for name, wanted in expected.items():
        if wanted["compare"]:
            value = found[name].detach().double()
            some = value.flatten()[wanted["index"]]
            values = max(values, float((some - torch.tensor(wanted["values"], dtype=torch.double)).abs().max()))
            sizes = max(sizes, relative(float(value.norm()), wanted["norm"]))
    yield f"values of {len(expected)} tensors at the end", values, VALUES
    yield "their norms", sizes, SIZES


def prepare(folder: Path, program: str) -> tuple[CoresModel, CoresProcessor]:
    """The folder's model, in fp32, with its LoRA, and what the published programs train of it."""
    with TemporaryDirectory() as ours:
        made = convert(program, folder / "model", folder / "clip", Path(ours) / "model").folder
        model, processor = load_model(made, torch.float32), CoresProcessor.from_pretrained(made)
    lora = LoraSection(r=8, alpha=16, dropout=0.0, targets=["q_proj", "v_proj"])
    choose_parts(model, ["lora", "embeddings", "head", "projection", "mask_decoder"], lora)
    found = published_names(model)
    with torch.no_grad():
        for name, value in load_file(folder / "lora_init.safetensors").items():
            found[name].copy_(value)
    return model.train(), processor


def published_names(model: CoresModel) -> dict[str, nn.Parameter]:
    """The model's parameters by the names of the published training state."""
    found = {}
    for name, parameter in model.named_parameters():
        layer, adapted, rest = name.replace(".base_layer", "").partition(".lora_")
        theirs = rename(f"{layer}.weight" if adapted else layer, PUBLISHED, back=True)
        if theirs is not None:
            found[PREFIX + (f"{theirs.removesuffix('.weight')}.lora_{rest}" if adapted else theirs)] = parameter
    return found


def pictures_of(folder: Path, image: str) -> Path:
    """Where the pictures of a folder lie, of which one is `image`. Raises FileNotFoundError that says where not."""
    places = [folder / "data", *sorted(folder.resolve().parent.glob("*/data")), SHARED / "data"]
    for place in places:
        if (place / image).is_file():
            return place
    raise FileNotFoundError(f"{image}: is in none of {', '.join(map(str, places))}")


def batch_of(model: CoresModel, processor: CoresProcessor, data: Path, pictures: list[Any]) -> dict[str, Any]:
    """What `CoresModel.forward` takes, a row for each conversation, in the stored order."""
    rows: list[tuple[list[int], list[int]]] = []
    places: list[list[int]] = [[] for _ in model.config.levels]
    of_mask, truth, sizes, resized, seen, features = [], [], [], [], [], []
    for stored in pictures:
        picture = processor.picture(data / stored["image"])
        with torch.no_grad():
            encoded = model.encode(picture.segmenter_pixels[None])
        for told in stored["conversations"]:
            ids, labels = expand(model, told["ids"], told["labels"])
            if told["mask"] is not None:
                truth.append(torch.from_numpy(masks.decode(told["mask"])))
                of_mask.append(len(rows))
                for level, token in zip(places, model.config.token_ids, strict=True):
                    level.append(ids.index(token) - 1)  # the position that predicts the token
            rows.append((ids, labels))
            sizes.append(picture.size)
            resized.append(picture.resized)
            seen.append(picture.pixel_values)
            features.append(encoded)
    return {
        "input_ids": padded([ids for ids, _ in rows], 0),
        "segment_ids": padded([[1] * len(ids) for ids, _ in rows], -1),
        "labels": padded([labels for _, labels in rows], UNSUPERVISED),
        "pixel_values": torch.stack(seen),
        "features": Features.cat(features),
        "token_positions": torch.tensor(places),
        "image_index": torch.tensor(of_mask),
        "truth": truth,
        "sizes": sizes,
        "resized": resized,
    }


def expand(model: CoresModel, ids: list[int], labels: list[int]) -> tuple[list[int], list[int]]:
    """Ids and labels with the picture's marker made into as many positions as it takes."""
    count, at = model.mllm.image_tokens, ids.index(IMAGE_PLACE)
    place = [int(model.config.mllm_config.image_token_id)] * count
    return ids[:at] + place + ids[at + 1 :], labels[:at] + [UNSUPERVISED] * count + labels[at + 1 :]


def losses_of(model: CoresModel, output: CoresOutput) -> dict[str, float]:
    """The losses as the published programs weigh and name them."""
    config = model.config
    found = {
        "loss": output.loss,
        "ce_loss": config.text_weight * output.text_loss,
        "mask_bce_loss": config.bce_weight * output.bce_loss,
        "mask_dice_loss": config.dice_weight * output.dice_loss,
        "mask_loss": output.mask_loss,
    }
    return {name: value.item() for name, value in found.items()}


def norm_of(trained: Mapping[str, nn.Parameter], part: str = "") -> float:
    """The norm of the gradient of all tensors, or of those whose name holds `part`."""
    grads = [p.grad.double().norm() for name, p in trained.items() if part in name and p.grad is not None]
    return float(torch.stack(grads).norm())


def relative(found: float, wanted: float) -> float:
    """How far a number is from the one wanted, as a share of it; the number itself where that is 0."""
    return abs(found - wanted) / abs(wanted) if wanted else abs(found)


def padded(rows: list[list[int]], value: int) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])
