"""Seconds by part and peak memory of a training step, on a model of middle size with random weights (`medium.py`).

    python benchmarks/train_step.py                                  # one step's parts, 3 heads
    python benchmarks/train_step.py --heads 12 --old ../cores-main   # this checkout against another, by turns
    python benchmarks/train_step.py --growth                         # over questions, pictures, length of text
    python benchmarks/train_step.py --levers                         # a row for every setting that trades them
    python benchmarks/train_step.py --busy --old ../cores-main       # where others compute, too: CPU seconds, 1 thread
    python benchmarks/train_step.py --size 7b --dtype bfloat16       # on CUDA: also tokens a second and MFU

2 pictures with 3 questions each of 387 positions, LoRA of rank 8 with embeddings, head, MLP and mask decoder, AdamW,
on 2 threads; with `--busy` one, and seconds of the CPU, which are the same beside other programs. Every figure is the
median of `--rounds` fresh processes, of each the median of `--steps` steps after a first one. `encoder` to `losses`
are of the forward pass (`losses` has what is not in the others, such as the head); `back:` the losses' and the
decoder's share of the backward pass, and all that is behind it. `first step`: with what is done once, such as
compiling. Its loss is printed: a setting that is exact leaves it as it is.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from medium import BOS, EOS, SIZES, build, compare, config, peak_memory
from torch import Tensor

import cores.modeling.model
from cores.modeling import CoresModel
from cores.recipe import PAPER_PARTS, LoraSection
from cores.training.trainable import choose_parts

WORDS, LOC, SEG = 4000, 3998, 3999
PREFIX, ALONE = 291, 387  # 256 patches and 35 tokens of text; a conversation behind them
PICTURE = (768, 1024)
DEFAULTS = {
    "heads": 3,
    "images": 2,
    "questions": 3,
    "positions": ALONE,
    "steps": 3,
    "threads": 2,
    "size": "medium",
    "dtype": "float32",
    "busy": False,
    "cached": False,
    "patches": False,
    "low": False,
    "masks_per_pass": 16,
    "checkpoint_decoder": False,
    "compile_decoder": False,
}
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # dense bf16 operations a second, by the card's name


def batch(settings: dict[str, Any], device: str, dtype: torch.dtype) -> dict[str, Any]:
    """A packed batch of random words; a conversation's answer is its last 16, with a token of both levels."""
    chance = torch.Generator().manual_seed(1)
    images, questions, own = settings["images"], settings["questions"], settings["positions"] - PREFIX
    prefix = torch.randint(3, LOC, (images, PREFIX), generator=chance)
    prefix[:, 0], prefix[:, 30:286] = BOS, WORDS
    talks = torch.randint(3, LOC, (images, questions, own), generator=chance)
    talks[..., -8], talks[..., -3], talks[..., -1] = LOC, SEG, EOS
    ids = torch.cat([prefix, talks.flatten(1)], dim=1)
    numbers = torch.arange(1, questions + 1).repeat_interleave(own).expand(images, -1)
    segments = torch.cat([torch.zeros_like(prefix), numbers], dim=1)
    labels = torch.full_like(talks, -100)
    labels[..., -16:] = talks[..., -16:]
    labels = torch.cat([torch.full_like(prefix, -100), labels.flatten(1)], dim=1)
    ends = PREFIX + own * torch.arange(1, questions + 1).repeat(images)  # where each conversation ends
    truth = []
    for number in range(images * questions):
        mask = torch.zeros(PICTURE, dtype=torch.bool)
        mask[40 * number % 500 : 40 * number % 500 + 200, 100:400] = True
        truth.append(mask.to(device))
    side = 1024 * PICTURE[0] // PICTURE[1]
    big = torch.randn(images, 3, 1024, 1024, generator=chance)
    big[:, :, side:] = 0
    return {
        "input_ids": ids.to(device),
        "segment_ids": segments.to(device),
        "labels": labels.to(device),
        "pixel_values": torch.randn(images, 3, 224, 224, generator=chance).to(device, dtype),
        "segmenter_pixels": big.to(device, dtype),
        "token_positions": torch.stack([ends - 9, ends - 4]).to(device),  # the state before a token predicts it
        "image_index": torch.arange(images).repeat_interleave(questions).to(device),
        "truth": truth,
        "sizes": [PICTURE] * images,
        "resized": [(side, 1024)] * images,
    }


class Clock:
    """Seconds of named parts of the current step."""

    def __init__(self, device: str, busy: bool) -> None:
        self.device, self.busy, self.seconds = device, busy, defaultdict[str, float](float)

    def now(self) -> float:
        if self.device == "cuda":
            torch.cuda.synchronize()
        return sum(os.times()[:4]) if self.busy else time.perf_counter()  # compilers are processes of their own

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with its seconds added to `name`."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = self.now()
            found = function(*args, **kwargs)
            self.seconds[name] += self.now() - began
            return found

        return timed


def step(model: CoresModel, optimiser: torch.optim.Optimizer, given: dict[str, Any], clock: Clock) -> float:
    """One step; the loss before it."""
    clock.seconds.clear()
    reached: dict[str, float] = {}
    began = clock.now()
    output = model(**given)
    forward = clock.now()

    def arrives(name: str) -> Callable[[Tensor], None]:
        return lambda gradient: reached.update({name: clock.now()})

    output.low_res_logits[-1].register_hook(arrives("losses"))
    output.tokens.register_hook(arrives("decoder"))
    output.loss.backward()
    backward = clock.now()
    optimiser.step()
    optimiser.zero_grad()
    done = clock.now()
    found = clock.seconds
    found["losses"] = forward - began - sum(found.values())
    found["back: losses"] = reached["losses"] - forward
    found["decoder's"] = reached["decoder"] - reached["losses"]
    found["LLM's"] = backward - reached["decoder"]
    found["AdamW"] = done - backward
    found["step"] = done - began
    return float(output.loss.detach())


def measure(settings: dict[str, Any]) -> dict[str, float]:
    """Medians over the steps of one process."""
    torch.set_num_threads(1 if settings["busy"] else settings["threads"])
    device, dtype = "cuda" if torch.cuda.is_available() else "cpu", getattr(torch, settings["dtype"])
    if device == "cpu" and find_spec("cores.training.freed_memory"):  # older checkouts have none
        from cores.training.freed_memory import give_back_large_tensors

        give_back_large_tensors()  # as `train` does
    model = build(config(WORDS, LOC, SEG, settings["heads"], settings["size"]), device, dtype).train()
    choose_parts(model, PAPER_PARTS, LoraSection(dropout=0.0))
    model.masks_per_pass = settings["masks_per_pass"]
    if settings["low"]:
        model.config.loss_resolution = "low"
    model.checkpoint_decoder = settings["checkpoint_decoder"]
    if settings["compile_decoder"]:
        model.segmenter.mask_decoder.compile()
    learned = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(learned, lr=1e-4, fused=True)  # as `train` does
    given = batch(settings, device, dtype)
    if settings["cached"]:
        with torch.no_grad():
            given["features"] = model.encode(given.pop("segmenter_pixels"))
    if settings["patches"]:
        from cores.modeling.mllms.llava import PATCHES  # older checkouts have none

        with torch.no_grad():
            given["pixel_extras"] = {PATCHES: model.mllm.encode_images({"pixel_values": given["pixel_values"]})}
    clock = Clock(device, settings["busy"])
    model.encode = clock.around("encoder", model.encode)  # type: ignore[method-assign]
    model.segment = clock.around("decoder", model.segment)  # type: ignore[method-assign]
    states = clock.around("LLM", cores.modeling.model.packed_states)
    cores.modeling.model.packed_states = states

    def run() -> float:
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            return step(model, optimiser, given, clock)

    began = clock.now()
    first = run()
    started = clock.now() - began
    steps = []
    for _ in range(settings["steps"]):
        run()
        steps.append(dict(clock.seconds))
    names = ["encoder", "LLM", "decoder", "losses", "back: losses", "decoder's", "LLM's", "AdamW", "step"]
    found = {name: statistics.median(one.get(name, 0.0) for one in steps) for name in names}
    found |= {"first step": started, "GB": peak_memory(), "loss": first}
    if device == "cuda":
        tokens = int((given["segment_ids"] >= 0).sum())
        language = sum(p.numel() for p in model.mllm.model.language_model.parameters())
        found |= {"images/s": settings["images"] / found["step"], "tokens/s": tokens / found["step"]}
        peak = next((most for card, most in PEAK.items() if card in torch.cuda.get_device_name()), float("nan"))
        found["MFU %"] = 100 * 4 * language * tokens / found["step"] / peak  # frozen: no gradients of weights
    return found


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("heads", "images", "questions", "positions", "steps", "threads", "masks_per_pass"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=DEFAULTS[name])
    parser.add_argument("--size", choices=SIZES, default="medium")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--busy", action="store_true", help="seconds of the CPU on one thread")
    parser.add_argument("--cached", action="store_true", help="features of the segmenter are given")
    parser.add_argument("--patches", action="store_true", help="what the projector gives is given")
    parser.add_argument("--low", action="store_true", help="mask losses at the decoder's own resolution")
    parser.add_argument("--checkpoint-decoder", action="store_true", help="compute the decoder again for gradients")
    parser.add_argument("--compile-decoder", action="store_true", help="compile it")
    parser.add_argument("--old", type=Path, help="another checkout, measured by turns with this one")
    parser.add_argument("--rounds", type=int, default=1, help="fresh processes a figure (default: 1)")
    parser.add_argument("--growth", action="store_true", help="over questions, pictures and length of text")
    parser.add_argument("--levers", action="store_true", help="a row for every setting that trades time and memory")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        say(json.dumps(measure(json.loads(args.one))))
        return 0
    base = {name: getattr(args, name) for name in DEFAULTS if hasattr(args, name)}
    cases = {"step": base}
    if args.growth:
        cases = {f"1 image, {n} questions": base | {"images": 1, "questions": n} for n in (1, 4, 16, 48)}
        cases |= {f"{n} images": base | {"images": n} for n in (1, 4)}
        cases |= {f"{n} positions": base | {"positions": n} for n in (512, 1024)}
    if args.levers:
        cases["cached features"] = base | {"cached": True}
        cases["cached features and patches"] = base | {"cached": True, "patches": True}
        cases["losses at low resolution"] = base | {"low": True}
        cases["masks_per_pass 2"] = base | {"masks_per_pass": 2}
        for switch in ("checkpoint_decoder", "compile_decoder"):
            cases[switch] = base | {switch: True}
    compare(__file__, cases, args.old, args.rounds, say)
    return 0


if __name__ == "__main__":
    sys.exit(main())
