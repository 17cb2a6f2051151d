"""Seconds of questions about one picture, on a model of middle size with random weights (`medium.py`).

    python benchmarks/ask.py
    python benchmarks/ask.py --busy --old ../cores-main      # this checkout against another, by turns; CPU seconds

`look`: the picture is read and encoded; `first`, `next`: a question about it, teacher-forced, with one mask of two
levels; `said first`, `said next`: the same, said token by token, 12 of them (always the same ones, so that there is a
mask); `all`: look and so many questions at once, on a new picture. Every
figure is the median of `--rounds` fresh processes, of each the median of `--times` runs after a first one.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from medium import build, compare, config, peak_memory
from PIL import Image

import cores.asking.asker
import cores.modeling.generation
from cores.asking.asker import Asker
from cores.checkpoints.find import shipped
from cores.modeling import CoresModel
from cores.processing import CoresProcessor

TOKENS = 12
DEFAULTS = {"heads": 3, "threads": 2, "busy": False, "times": 3, "questions": 4}
QUERY = "the cup that stands behind the red kettle on the left"


def by_heart(token_ids: list[int]) -> Callable[..., Any]:
    """`generate`, that says the same words whatever the model would: a location, a target, and never an end."""
    said = [20, 21, token_ids[0], 22, token_ids[1]] + [23] * (TOKENS - 5)

    def generate(model: CoresModel, prefixes: Any, questions: Any, closing: Any, most: int, **_: Any) -> Any:
        words = iter(said)
        choose = lambda chances, _: torch.full_like(chances[:, 0], next(words), dtype=torch.long)  # noqa: E731
        return cores.modeling.generation.generate(model, prefixes, questions, closing, most, choose)

    return generate


def measure(settings: dict[str, Any]) -> dict[str, float]:
    """Medians of one process."""
    torch.set_num_threads(1 if settings["busy"] else settings["threads"])
    processor = CoresProcessor.from_pretrained(shipped("cores-tiny"))
    words = len(processor.tokenizer)
    loc, seg = processor.token_ids
    sizes = {"mllm_image_size": 224, "image_tokens": 256, "image_token_id": words, "segmenter_image_size": 1024}
    processor.sizes = replace(processor.sizes, **sizes)
    model = build(config(words, loc, seg, settings["heads"])).eval()
    cores.asking.asker.generate = by_heart(model.config.token_ids)  # type: ignore[attr-defined]
    values = np.random.default_rng(0).integers(0, 255, (768, 1024, 3), dtype=np.uint8)
    pictures = [Image.fromarray(np.roll(values, turn, 1)) for turn in range(2 * settings["times"] + 2)]
    asker = Asker(model, processor, max_new_tokens=TOKENS)
    now = time.process_time if settings["busy"] else time.perf_counter

    def timed(function: Callable[..., Any], *args: Any) -> tuple[float, Any]:
        began = now()
        found = function(*args)
        return now() - began, found

    many = settings["questions"]
    runs: dict[str, list[float]] = {}
    for _ in range(settings["times"] + 1):
        one: dict[str, float] = {}
        one["look"], encoded = timed(asker.encode_image, pictures.pop())
        one["first"], _ = timed(asker.teacher_force, encoded, [(QUERY, "phrase")], [None])
        one["next"], _ = timed(asker.teacher_force, encoded, [(QUERY[8:], "phrase")], [None])
        encoded = replace(encoded)  # as if it were not asked about yet
        one["said first"], _ = timed(asker.generate, encoded, [(QUERY, "phrase")])
        one["said next"], (answer,) = timed(asker.generate, encoded, [(QUERY[8:], "phrase")])
        look, encoded = timed(asker.encode_image, pictures.pop())
        ask, _ = timed(asker.teacher_force, encoded, [(QUERY, "phrase")] * many, [None] * many)
        one[f"all {many}"] = look + ask
        one["masks said"] = len(answer.chains)
        for name, seconds in one.items():
            runs.setdefault(name, []).append(seconds)
    return {name: statistics.median(found[1:]) for name, found in runs.items()} | {"GB": peak_memory()}


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("heads", "threads", "times", "questions"):
        parser.add_argument(f"--{name}", type=int, default=DEFAULTS[name])
    parser.add_argument("--busy", action="store_true", help="seconds of the CPU on one thread")
    parser.add_argument("--old", type=Path, help="another checkout, measured by turns with this one")
    parser.add_argument("--rounds", type=int, default=1, help="fresh processes a figure (default: 1)")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        say(json.dumps(measure(json.loads(args.one))))
        return 0
    settings = {name: getattr(args, name) for name in DEFAULTS}
    compare(__file__, {"ask": settings}, args.old, args.rounds, say)
    return 0


if __name__ == "__main__":
    sys.exit(main())
