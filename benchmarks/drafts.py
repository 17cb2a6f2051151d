"""What drafted answers save, on a model of middle size with random weights (`medium.py`) that says real answers.

    python benchmarks/drafts.py
    python benchmarks/drafts.py --batches 1 4 16 --pictures 16 --device cuda

A model with random weights says nothing, so it is made to say what the shipped model answers to the questions of
`scenes|test`: at every token, of a draft or not, the next of that answer. `forced`: the same answers, given. Pictures
are looked at and prefixes read before; a row's seconds are those of questions, answers and masks alone. All ways take
turns, `--rounds` times after a first one; figures are medians. `passes`: of the language model, an answer.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from medium import build, config
from PIL import Image

from cores.asking.asker import Asker
from cores.asking.prefixes import Prefixes
from cores.checkpoints.find import shipped
from cores.checkpoints.load import load
from cores.data.sources import open_source
from cores.modeling import generation
from cores.modeling.drafting import Block
from cores.processing import CoresProcessor

WAYS = ("off", "call", "run")


def answers_of(pictures: int, questions: int) -> tuple[list[list[Any]], list[list[list[int]]]]:
    """So many queries about each of so many scenes, and what the shipped model answers: ids, with what closes them."""
    model, processor = load(None, "cpu")
    asker, source = Asker(model.eval(), processor), open_source("scenes|test", None)
    samples = [source[number] for number in range(pictures)]
    turns = [[turn for talk in sample.conversations for turn in talk.turns] for sample in samples]
    queries = [[(turn.query, turn.form) for turn in own][:questions] for own in turns]
    told = asker.generate_batch(asker.encode_images([sample.image for sample in samples]), queries)
    return queries, [[[*one.ids, *processor.closing] for one in own] for own in told]


class ByHeart(generation._Telling):
    """An answer whose every token is known, whatever a model predicts. `known`: by the question's ids."""

    known: dict[tuple[int, ...], list[int]]

    def say(self, block: Block, predicted: Sequence[int]) -> list[int]:
        whole = self.known[tuple(self.question)]
        paths: dict[int, list[int]] = {block.root: self.said}
        found = []
        for number in range(block.root, len(block.ids)):
            if number > block.root:
                paths[number] = [*paths[block.before[number]], block.ids[number]]
            path = paths[number]
            right = whole[: len(path)] == path and len(path) < len(whole)
            found.append(whole[len(path)] if right else 0)
        return super().say(block, found)


def measure(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    queries, told = answers_of(args.pictures, args.questions)
    processor = CoresProcessor.from_pretrained(shipped("cores-tiny"))
    words = len(processor.tokenizer)
    sizes = {"mllm_image_size": 224, "image_tokens": 256, "image_token_id": words, "segmenter_image_size": 1024}
    processor.sizes = replace(processor.sizes, **sizes)
    dtype = getattr(torch, args.dtype)
    model = build(config(words, *processor.token_ids, size=args.size), args.device, dtype).eval()
    ids = [processor.question(*query).tolist() for own in queries for query in own]
    ByHeart.known = dict(zip(map(tuple, ids), [answer for own in told for answer in own], strict=True))
    told = [[ByHeart.known[tuple(processor.question(*query).tolist())] for query in own] for own in queries]
    generation._Telling = ByHeart  # type: ignore[misc]
    values = np.random.default_rng(0).integers(0, 255, (768, 1024, 3), dtype=np.uint8)
    prefixes = Prefixes(args.pictures)
    askers = {way: Asker(model, processor, prefixes=prefixes, drafts=way) for way in WAYS}  # type: ignore[arg-type]
    images = askers["off"].encode_images([Image.fromarray(np.roll(values, n, 1)) for n in range(args.pictures)])
    given = [[processor.parse_answer(answer).text for answer in own] for own in told]
    for image in images:
        askers["off"].teacher_force(image, queries[0][:1], [None])  # reads the prefix
    count = sum(map(len, queries))

    def now() -> float:
        if args.device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    say(f"{args.pictures} pictures, {count} questions, {sum(len(a) for own in told for a in own) / count:.1f} tokens")
    say(f"{'batch':>6}{'way':>8}{'seconds':>10}{'/ forced':>10}{'a second':>10}{'passes':>8}")
    for batch in args.batches:
        seconds: dict[str, list[float]] = {}
        for _ in range(args.rounds + 1):
            for way in ("forced", *WAYS):
                began = now()
                for first in range(0, args.pictures, batch):
                    some = slice(first, first + batch)
                    if way == "forced":
                        askers["off"].teacher_force_batch(images[some], queries[some], given[some])
                    else:
                        found = askers[way].generate_batch(images[some], queries[some])
                        assert [[one.length for one in own] for own in found] == [
                            [len(a) - 1 for a in own] for own in told[some]
                        ]
                seconds.setdefault(way, []).append(now() - began)
        forced = statistics.median(seconds["forced"][1:])
        for way, runs in seconds.items():
            middle = statistics.median(runs[1:])
            tally = None if way == "forced" else askers[way].tally
            passes = 1.0 if tally is None else tally.passes / tally.answers
            say(f"{batch:6}{way:>8}{middle:10.2f}{middle / forced:10.2f}{count / middle:10.2f}{passes:8.2f}")
        for asker in askers.values():
            asker.tally = type(asker.tally)()


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--batches", type=int, nargs="+", default=[1, 4, 16], help="pictures that are asked about at once"
    )
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--questions", type=int, default=3, help="about each picture")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="on the CPU, its seconds are counted (default)")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--size", default="medium", help="medium or 7b")
    measure(parser.parse_args())
    return 0


if __name__ == "__main__":
    sys.exit(main())
