"""The chain in words beside the token chain, on scenes: gIoU, refusals, time.

    cores scenes words --out taught
    python benchmarks/words.py taught/model --pictures 100

The same tiny model twice: as it comes with cores, answering in tokens, and taught to say boxes in words. Figures:
benchmarks/words.md.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL.Image import Image

from cores.asking.answerer import Answerer
from cores.asking.asker import Asker
from cores.checkpoints.load import load
from cores.data.sample import Sample
from cores.evaluation.evaluator import evaluate_asker
from cores.scenes.kinds import LEARNED
from cores.scenes.pretrain.words import boxes_of
from cores.scenes.questions import draw_questions
from cores.scenes.source import open_scenes
from cores.words.chain import Settings, WordsChain
from cores.words.grounding import CORES
from cores.words.hearing import Pointed
from cores.words.load import load_segmenter, load_speaker
from cores.words.places import Place
from cores.words.speaker import Look, Spoken

CPU = torch.device("cpu")
WAYS = {
    "2 levels, crop": Settings(levels=2, crop=True),
    "2 levels, no crop": Settings(levels=2, crop=False),
    "1 level": Settings(levels=1),
    "2 levels, crop, 5 votes": Settings(levels=2, crop=True, votes=5),
}


def chains(taught: str, segmenter: Any) -> Iterator[tuple[str, Answerer[Any]]]:
    """Every way of answering, by name."""
    yield "tokens", Asker(*load(None, CPU))
    speaker = load_speaker(taught, CPU, torch.float32)
    for name, settings in WAYS.items():
        yield f"words, {name}", WordsChain(speaker, segmenter, settings)


def of_true_boxes(segmenter: Any, split: str, pictures: int) -> dict[str, float]:
    """Mean IoU when every box is right: alone, and guided by the mask of the true location's box."""
    scenes, found = open_scenes(split, n=pictures), {"alone": [], "guided": []}  # type: dict[str, list[float]]
    chain = WordsChain(Silent(), segmenter)
    for i in range(len(scenes)):
        scene = scenes.scene(i)
        seen = chain.encode_image(scene.picture)
        for question in draw_questions(scene, LEARNED, scenes.scene_seed(i), scenes.questions, split):
            for asked in question.targets:
                truth = np.logical_or.reduce([scene.mask(n, asked.part) for n in asked.things])
                pairs = zip(boxes_of(scene, asked, whole=True), boxes_of(scene, asked), strict=True)
                places = [Place(None, whole, (Pointed(box, None),)) for whole, box in pairs]
                with torch.no_grad():
                    guided = chain.masks_of(seen, places)[-1]
                    alone = chain.masks_of(seen, [replace(place, location=None) for place in places])[-1]
                for name, logits in (("alone", alone), ("guided", guided)):
                    mask = chain.full_size(seen, logits[None])[0].mask
                    found[name].append(float((mask & truth).sum() / (mask | truth).sum()))
    return {name: float(np.mean(values)) for name, values in found.items()}


class Silent:
    """A speaker who is asked nothing."""

    grounding = CORES
    tokenizer: Any = None
    model: Any = None

    def look(self, image: Image) -> Look:
        return Look((image.height, image.width), (image.height, image.width), "", None)

    def ask(self, look: Look, prompts: Sequence[str], max_new_tokens: int, draw: int | None = None) -> list[Spoken]:
        raise NotImplementedError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("taught", help="the model that `cores scenes words` wrote")
    parser.add_argument("--segmenter", default="shipped", help="folder of a segmenter or a model (default: shipped)")
    parser.add_argument("--split", default="test")
    parser.add_argument("--pictures", type=int, default=100)
    args = parser.parse_args()
    segmenter = load_segmenter(args.segmenter, CPU, torch.float32)
    given = of_true_boxes(segmenter, args.split, args.pictures)
    sys.stdout.write(f"true boxes: {given['alone']:.3f} alone, {given['guided']:.3f} guided by their locations\n")
    scenes = open_scenes(args.split, n=args.pictures)
    samples: list[Sample] = [scenes[i] for i in range(len(scenes))]
    sys.stdout.write(
        "| answers | gIoU | cIoU | absent refused | present refused | s a picture |\n|---|---|---|---|---|---|\n"
    )
    for name, asker in chains(args.taught, segmenter):
        started = time.monotonic()
        found = evaluate_asker(asker, samples, ("generated",), progress=False, sanity=False)
        seconds = (time.monotonic() - started) / len(samples)
        figures = found.compute()["generated"]
        answers = figures["answers"]
        row = [figures["giou"], figures["ciou"], answers["refusal"], answers["false_refusal"]]
        sys.stdout.write(f"| {name} | {' | '.join(f'{value:.3f}' for value in row)} | {seconds:.1f} |\n")
        kinds = (f"{kind} {values['giou']:.3f}" for kind, values in figures["kinds"].items() if kind != "absent")
        sys.stdout.write(f"  gIoU: {', '.join(kinds)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
