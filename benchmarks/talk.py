"""What the second question about a picture costs, and what ways of asking are worth.

    python benchmarks/talk.py cost                 # the model of middle size (`medium.py`), seconds of the CPU
    python benchmarks/talk.py worth --pictures 40  # the shipped model on `scenes|test`

`cost`: a talk (`Cores.chat`) about a picture of 768 x 1024. The model has random weights, so it is made to say what
the shipped model answers to two questions of a scene (`drafts.ByHeart`). `first`: the picture is looked at, its prefix
read, and the first question answered, with its mask; `second`: another question. Medians of `--times` pictures after
a first one.

`worth`: gIoU of the questions that have a target, all of a picture's asked in turn: as they are, with `refine`, and in
talks that remember the conversation; of the first question of a talk and of those behind it.
"""

import argparse
import statistics
import sys
import time
from dataclasses import replace

import numpy as np
import torch
from drafts import ByHeart, answers_of
from medium import build, config
from PIL import Image

import cores
from cores import masks
from cores.checkpoints.find import shipped
from cores.data.sources import open_source
from cores.inference.facade import Cores
from cores.modeling import generation
from cores.processing import CoresProcessor


def cost(times: int) -> None:
    queries, told = answers_of(times + 1, 2)
    processor = CoresProcessor.from_pretrained(shipped("cores-tiny"))
    words = len(processor.tokenizer)
    sizes = {"mllm_image_size": 224, "image_tokens": 256, "image_token_id": words, "segmenter_image_size": 1024}
    processor.sizes = replace(processor.sizes, **sizes)
    model = Cores(build(config(words, *processor.token_ids)).eval(), processor)
    generation._Telling = ByHeart  # type: ignore[misc]
    values = np.random.default_rng(0).integers(0, 255, (768, 1024, 3), dtype=np.uint8)
    firsts, seconds, shares = [], [], []
    for number, (asked, answers) in enumerate(zip(queries, told, strict=True)):
        ids = [tuple(processor.question(*query).tolist()) for query in asked]
        ByHeart.known = dict(zip(ids, answers, strict=True))
        picture, took = Image.fromarray(np.roll(values, number, 1)), [time.process_time()]
        chat = model.chat(picture)
        for (query, form), answer in zip(asked, answers, strict=True):
            found = chat.ask(query, form)
            took.append(time.process_time())
            assert found.tokens == len(answer) - len(processor.closing)
        firsts.append(took[1] - took[0])
        seconds.append(took[2] - took[1])
        shares.append(seconds[-1] / firsts[-1])
        say(f"first {firsts[-1]:.3f}  second {seconds[-1]:.3f}")
    middle = [statistics.median(figures[1:]) for figures in (firsts, seconds, shares)]
    say("medians: first {:.3f} s, second {:.3f} s, second / first {:.3f}".format(*middle))


def worth(pictures: int) -> None:
    model, source = cores.load(), open_source("scenes|test", None)
    ious: dict[str, list[float]] = {}
    for number in range(pictures):
        sample = source[number]
        turns = [turn for talk in sample.conversations for turn in talk.turns if turn.targets]
        encoded, queries = model.encode(sample.image), [turn.query for turn in turns]
        chat = model.chat(sample.image, remember="conversation")
        ways = {
            "plain": model.ask(encoded, queries),
            "refine": model.ask(encoded, queries, refine=True),
            "conversation": [chat.ask(query) for query in queries],
        }
        for way, found in ways.items():
            for place, (turn, one) in enumerate(zip(turns, found, strict=True)):
                truth = masks.decode(masks.union_rle([target.mask for target in turn.targets], sample.size))
                iou = float((one.mask & truth).sum() / max((one.mask | truth).sum(), 1))
                ious.setdefault(f"{way}, {'first' if place == 0 else 'later'}", []).append(iou)
                ious.setdefault(f"{way}, all", []).append(iou)
    for way, figures in ious.items():
        say(f"{way:22} gIoU {statistics.mean(figures):.4f} of {len(figures)}")


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("cost", "worth"))
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=40)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.what == "cost":
        cost(args.times)
    else:
        worth(args.pictures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
