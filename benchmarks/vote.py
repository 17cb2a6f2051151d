"""What several drawn answers are worth: gIoU of the greedy answer, and of a vote of the first n of one drawing.

    OMP_NUM_THREADS=1 python benchmarks/vote.py --limit 100                       # the shipped model
    OMP_NUM_THREADS=1 python benchmarks/vote.py --model runs/tiny-grpo --on "scenes|novel" --temperature 1.5

Every question of a picture is answered greedily and by 8 drawn answers; the vote of n is the pixel majority of the
first n that were drawn. `likeliest` and `surest` are single answers of the 8: the one with the highest score, and the
one whose masks have the highest mean confidence (a refusal has its own). gIoU is over questions with a
target; `refused`: the share of questions without one whose mask is empty. Intervals are 95 % by the bootstrap over
pictures, those of differences paired.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

import cores
from cores import masks
from cores.data.sources import open_source
from cores.evaluation.intervals import PerImage, resampled
from cores.evaluation.metrics import Ratio
from cores.inference.facade import Cores
from cores.inference.following import result_of
from cores.inference.options import Options
from cores.inference.segmentation import Segmentation
from cores.inference.voting import vote
from cores.masks import Mask
from cores.modeling.sampling import Sampling

Figure = tuple[str, str]  # a way to answer, and what is measured of it

GREEDY = "greedy"
COUNTS = (1, 4, 8)  # answers that vote; the most of them are drawn
ENDS = (0.025, 0.975)  # of an interval


def sureness(answer: Segmentation) -> float:
    return statistics.mean(one.confidence for one in answer.targets) if answer.targets else answer.refusal


def ways_of(greedy: Segmentation, drawn: Sequence[Segmentation]) -> dict[str, Mask]:
    """The mask of each way to answer. `drawn`: in the order of their drawing."""
    votes = {f"vote of {n}": vote(drawn[:n]) for n in COUNTS}
    likeliest, surest = max(drawn, key=lambda one: one.score), max(drawn, key=sureness)
    return {GREEDY: greedy.mask, **votes, "likeliest": likeliest.mask, "surest": surest.mask}


def iou(found: Mask, truth: Mask) -> float:
    return float((found & truth).sum() / max((found | truth).sum(), 1))


def measure(model: Cores, args: argparse.Namespace) -> tuple[PerImage[Figure], float]:
    """Each way's figures by picture, and the share of drawn answers that say what the greedy one does."""
    source, asker, found, same = open_source(args.on, args.data), model._asker(Options()), PerImage[Figure](), []
    sampling = Sampling(args.temperature, args.top_p)
    for number in range(min(args.limit, len(source))):
        sample = source[number]
        turns = [talk.turns[0] for talk in sample.conversations]
        turns = [turn for turn in turns if turn.targets or turn.answer is None]
        encoded, queries = model.encode(sample.image), [(turn.query, turn.form) for turn in turns]
        keys = [(args.seed, number, place) for place in range(len(turns))]
        (groups,) = asker.draw_batch([encoded], [queries], [keys], max(COUNTS), sampling)
        sums: dict[Figure, Ratio] = {}
        for turn, group, plain in zip(turns, groups, asker.generate(encoded, queries), strict=True):
            greedy, *drawn = [result_of(asker, encoded, turn.query, answer) for answer in (plain, *group)]
            same += [one.answer == greedy.answer for one in drawn]
            truth = masks.decode(masks.union_rle([target.mask for target in turn.targets], sample.size))
            for way, mask in ways_of(greedy, drawn).items():
                kind, worth = ("gIoU", iou(mask, truth)) if turn.targets else ("refused", float(not mask.any()))
                top, bottom = sums.get((way, kind), (0.0, 0.0))
                sums[way, kind] = (top + worth, bottom + 1)
        found.add(sums)
    return found, statistics.mean(same)


def report(found: PerImage[Figure], seed: int) -> None:
    """A line a way: each figure with its interval, and how far it is from the greedy answer's."""
    paths, table = found.table()
    again = dict(zip(paths, resampled(table, seed).T, strict=True))
    figures = dict(zip(paths, table.sum(0).T, strict=True))
    for kind in ("gIoU", "refused"):
        counted = [path for path in paths if path[1] == kind]
        for path in counted:
            top, bottom = figures[path]
            plain = (GREEDY, kind)
            gain = top / bottom - figures[plain][0] / figures[plain][1]
            low, high = np.nanquantile(again[path], ENDS)
            less, more = np.nanquantile(again[path] - again[plain], ENDS)
            say(
                f"{kind:8} {path[0]:10} {top / bottom:.4f} ({low:.4f} to {high:.4f})  "
                f"{gain:+.4f} ({less:+.4f} to {more:+.4f})  of {bottom:.0f}"
            )


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a model or run folder; the shipped one without it")
    parser.add_argument("--on", default="scenes|test", help="a data source")
    parser.add_argument("--data", type=Path, help="its folder")
    parser.add_argument("--limit", type=int, default=100, help="pictures")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, began = cores.load(args.model), time.process_time()
    found, same = measure(model, args)
    say(f"{found.images} pictures, {time.process_time() - began:.0f} s of one core")
    say(f"{same:.1%} of the drawn answers say what the greedy one does")
    report(found, args.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
