"""The chain in words beside the token chain, on scenes: gIoU, refusals, time.

    cores scenes words --out taught
    python benchmarks/words.py taught/model --pictures 100

The same tiny model twice: as it comes with cores, answering in tokens, and taught to say boxes in words. Figures:
benchmarks/words.md.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch

from cores.asking.answerer import Answerer
from cores.asking.asker import Asker
from cores.checkpoints.load import load
from cores.data.sample import Sample
from cores.evaluation.evaluator import evaluate_asker
from cores.scenes.source import open_scenes
from cores.words.chain import Settings, WordsChain
from cores.words.load import load_segmenter, load_speaker

CPU = torch.device("cpu")
WAYS = {
    "2 levels, crop": Settings(levels=2, crop=True),
    "2 levels, no crop": Settings(levels=2, crop=False),
    "1 level": Settings(levels=1),
    "2 levels, crop, 5 votes": Settings(levels=2, crop=True, votes=5),
}


def chains(taught: str, segmenter: str) -> Iterator[tuple[str, Answerer[Any]]]:
    """Every way of answering, by name."""
    yield "tokens", Asker(*load(None, CPU))
    speaker, found = load_speaker(taught, CPU, torch.float32), load_segmenter(segmenter, CPU, torch.float32)
    for name, settings in WAYS.items():
        yield f"words, {name}", WordsChain(speaker, found, settings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("taught", help="the model that `cores scenes words` wrote")
    parser.add_argument("--segmenter", default="shipped", help="folder of a segmenter or a model (default: shipped)")
    parser.add_argument("--split", default="test")
    parser.add_argument("--pictures", type=int, default=100)
    args = parser.parse_args()
    scenes = open_scenes(args.split, n=args.pictures)
    samples: list[Sample] = [scenes[i] for i in range(len(scenes))]
    sys.stdout.write(
        "| answers | gIoU | cIoU | absent refused | present refused | s a picture |\n|---|---|---|---|---|---|\n"
    )
    for name, asker in chains(args.taught, args.segmenter):
        started = time.monotonic()
        found = evaluate_asker(asker, samples, ("generated",), progress=False, sanity=False)
        seconds = (time.monotonic() - started) / len(samples)
        figures = found.compute()["generated"]
        answers = figures["answers"]
        row = [figures["giou"], figures["ciou"], answers["refusal"], answers["false_refusal"]]
        sys.stdout.write(f"| {name} | {' | '.join(f'{value:.3f}' for value in row)} | {seconds:.1f} |\n")
        for kind, values in figures["kinds"].items():
            sys.stdout.write(f"  {kind}: {values['giou']}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
