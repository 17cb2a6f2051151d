"""Are our numbers the published program's? `python benchmarks/parity.py GOLDEN_DIR...`

A folder is a random model with what the published program computes from it (config.json, model.safetensors,
clip.safetensors, clip_config.json, inputs.npz, outputs.npz), a tokenizer with prompts, ids and labels
(tokenizer.model, cases.json), or the steps of a training (micro_batches.json; see parity_train.py). The model goes
through the conversion that `cores convert` does. One line an array, a case or a step; the exit code is 1 when one is
beyond its tolerance.

Legend: conversations = questions, each of one image; images; levels = of the chain; (h, w) = an image's own size.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from parity_train import compare_training, expand, losses_of, padded, relative
from torch import Tensor
from torch.nn import functional as F

from cores.checkpoints.configs import read_json
from cores.checkpoints.library_errors import quietly
from cores.checkpoints.published.convert_config import tower_config
from cores.checkpoints.published.convert_model import Tower, plan_model
from cores.checkpoints.tensors.lazy import open_shards
from cores.geometry import restore
from cores.modeling import CoresModel, CoresOutput
from cores.processing.legacy_tokenizer import read_legacy_tokenizer
from cores.processing.tokens import UNSUPERVISED, encode_prompt
from cores.prompts import Prompt, PromptSettings

STATES, LOW_RES, FULL, LOSS = 5e-6, 1e-5, 5e-4, 1e-6  # of the array's largest value; FULL is stored in 16 bits
STYLES = {"cores": "published", "lisa": "lisa"}

Compared = tuple[str, float, float]  # name, difference, tolerance


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="GOLDEN_DIR")
    wrong = 0
    for folder in parser.parse_args(argv).folders:
        say(f"{folder}")
        for name, difference, tolerance in comparison_of(folder)(folder):
            beyond = not difference <= tolerance  # nan, too
            wrong += beyond
            say(f"  {name:36} {difference:9.2e} of {tolerance:.0e}  {'BEYOND' if beyond else 'ok'}")
    say(f"{wrong} beyond tolerance" if wrong else "all within tolerance")
    return 1 if wrong else 0


def comparison_of(folder: Path) -> Callable[[Path], Iterator[Compared]]:
    """What a folder is to be compared by, told by the files that it holds."""
    if (folder / "micro_batches.json").is_file():
        return compare_training
    return compare_tokens if (folder / "cases.json").is_file() else compare_model


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


# Models


def compare_model(folder: Path) -> Iterator[Compared]:
    """Every array of outputs.npz: the largest difference, relative to the array's largest value."""
    golden, inputs = dict(np.load(folder / "outputs.npz")), dict(np.load(folder / "inputs.npz"))
    model = convert_model(folder)
    batch, image_of = batch_of(model, inputs)
    with torch.no_grad():
        output = model(**batch)
        yield from _states(model, batch, output, golden)
    yield from _masks(model, batch, image_of, output, golden)
    found = losses_of(model, output)
    for name, value in found.items():
        yield name, relative(value, float(golden.pop(name))), LOSS
    for name in golden:
        say(f"  {name:36} is not compared: nothing of that name is known here")


def convert_model(folder: Path) -> CoresModel:
    """The folder's model by way of our own checkpoint format, in fp32."""
    published = read_json(folder / "config.json")
    ids = published["grounding"]
    settings = PromptSettings(style="published" if ids.get("loc") is not None else "lisa")
    numbers = {"location": ids.get("loc"), "target": ids["seg"]}
    named = zip(settings.level_names, settings.level_tokens, strict=True)
    levels = [{"name": name, "token": token, "token_id": numbers[name]} for name, token in named]
    clip = tower_config(folder / "clip_config.json", read_json(folder / "clip_config.json"))
    tower = Tower("clip", open_shards(folder / "clip.safetensors"), clip)
    weights = open_shards(folder / "model.safetensors")
    config, plan = plan_model(folder, "model", published, weights, tower, levels, settings.style)
    with TemporaryDirectory() as ours:
        plan.write(Path(ours))
        config.save_pretrained(ours)
        with quietly():
            return CoresModel.from_pretrained(ours, dtype=torch.float32).eval()


def batch_of(model: CoresModel, inputs: Mapping[str, Any]) -> tuple[dict[str, Any], list[int]]:
    """What `CoresModel.forward` takes, a row for each conversation; and the image of each row."""
    side, config = model.segmenter.image_size, model.config
    sizes, resized = ([tuple(size) for size in inputs[name].tolist()] for name in ("sizes", "resized"))
    pixels = []
    for number, size in enumerate(resized):
        low = torch.from_numpy(inputs[f"sam_low{number}"])[None]
        whole = F.interpolate(low, size, mode="bilinear", align_corners=False)
        pixels.append(F.pad(whole, (0, side - size[1], 0, side - size[0])))
    with torch.no_grad():
        features = model.encode(torch.cat(pixels))
    truth = [torch.from_numpy(inputs[f"gt{number}"]).bool() for number in range(len(sizes))]

    ids, labels, places, image_of, rows_of_masks = [], [], [[] for _ in config.levels], [], []
    left = [len(masks) for masks in truth]
    for number in range(sum(name.startswith("ids_") for name in inputs)):
        row, told = expand(model, inputs[f"ids_{number}"].tolist(), inputs[f"labels_{number}"].tolist())
        chains = [[t for t, one in enumerate(row) if one == token] for token in config.token_ids]
        image = image_of[-1] if image_of else 0
        if chains[-1] and not left[image]:  # conversations stand in the order of their images
            image = next(later for later in range(image, len(left)) if left[later])
        left[image] -= len(chains[-1])
        image_of.append(image)
        rows_of_masks += [number] * len(chains[-1])
        for level, found in zip(places, chains, strict=True):
            level += [t - 1 for t in found]  # the position that predicts the token
        ids.append(row)
        labels.append(told)
    batch = {
        "input_ids": padded(ids, 0),
        "segment_ids": padded([[1] * len(row) for row in ids], -1),
        "labels": padded(labels, UNSUPERVISED),
        "pixel_values": torch.from_numpy(inputs["clip_pixels"])[image_of],
        "features": features[image_of],
        "token_positions": torch.tensor(places),
        "image_index": torch.tensor(rows_of_masks),
        "truth": [mask for masks in truth for mask in masks],
        "sizes": [sizes[image] for image in image_of],
        "resized": [resized[image] for image in image_of],
    }
    return batch, image_of


def calls(model: CoresModel, images: int) -> list[tuple[int, int]]:
    """(image, level) of the published program's calls of the mask decoder, in their order."""
    levels = range(len(model.config.levels))
    if model.config.refiner == "none":  # one image after the other
        return [(image, level) for image in range(images) for level in levels]
    return [(image, level) for level in levels for image in range(images)]


def _states(
    model: CoresModel, batch: Mapping[str, Any], output: CoresOutput, golden: dict[str, Any]
) -> Iterator[Compared]:
    valid = batch["segment_ids"] >= 0  # (conversations, tokens)
    states = output.hidden_states
    for name, found in (("hidden_last", states), ("prompt_proj", model.projection(states))):
        wanted = torch.from_numpy(golden.pop(name))[:, : valid.shape[1]]
        yield name, difference(found[valid], wanted[valid]), STATES


def _masks(
    model: CoresModel, batch: Mapping[str, Any], image_of: list[int], output: CoresOutput, golden: dict[str, Any]
) -> Iterator[Compared]:
    masks_of = [image_of[row] for row in batch["image_index"].tolist()]
    for number, (image, level) in enumerate(calls(model, max(image_of) + 1)):
        row = image_of.index(image)
        low = output.low_res_logits[level][[mask for mask, one in enumerate(masks_of) if one == image]]
        full = restore(low, model.segmenter.image_size, batch["resized"][row], batch["sizes"][row], "pad")
        for name, found, tolerance in (("low_res", low, LOW_RES), ("mask_logits", full, FULL)):
            wanted = torch.from_numpy(golden.pop(f"{name}_{number}").astype(np.float32))
            yield f"{name}_{number} (image {image}, level {level})", difference(found, wanted[:, 0]), tolerance


def difference(found: Tensor, wanted: Tensor) -> float:
    """Largest difference, relative to the largest value wanted; inf where shapes differ."""
    if found.shape != wanted.shape:
        return float("inf")
    if not wanted.numel():
        return 0.0
    return float((found - wanted).abs().max() / wanted.abs().max())


# Tokens


def compare_tokens(folder: Path) -> Iterator[Compared]:
    """Every case of cases.json: 0 where prompt, ids and labels are equal, else how many of them are not."""
    cases = json.loads((folder / "cases.json").read_text("utf-8"))
    file = folder / "tokenizer.model"
    tokenizers = {s: read_legacy_tokenizer(file, PromptSettings(style=s).level_tokens) for s in STYLES.values()}
    for number, case in enumerate(cases):
        style = STYLES[case["style"]]
        prompt = Prompt(PromptSettings(format=case["format"], style=style))
        pieces = prompt.whole([tuple(turn) for turn in case["turns"]], Random(0))
        tokens = encode_prompt(tokenizers[style], pieces)
        text = "".join(piece.text for piece in pieces)
        found = {"prompt": text, "ids": tokens.ids, "labels": tokens.labels}
        wrong = [name for name, value in found.items() if name in case and case[name] != value]
        called = f"{number} {case['style']} {case['format']} {case['mode']}"
        yield f"{called}{': ' + ', '.join(wrong) if wrong else ''}", float(len(wrong)), 0.0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
