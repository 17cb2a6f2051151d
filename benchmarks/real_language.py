"""Does real language help with wordings never seen? SmolLM2 in the tiny model's place, on the synthetic scenes.

python benchmarks/real_language.py --out runs/real-language

Vision tower, segmenter and refiner are those that come with cores; the language model is that of benchmarks/smollm.py,
with LoRA, and its projector begins as the tiny one's, turned towards this model's words. First a lesson
(real_language_lesson.py), then `cores train` by real_language.yaml. The same command goes on where it was stopped;
with fewer steps than were reached it ends there. Prints a table for benchmarks/real_language.md.
"""

import argparse
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from real_language_lesson import SPLITS, teach
from smollm import load_language, make_llava
from torch import Tensor

from cores.checkpoints.find import shipped
from cores.checkpoints.runs.bases import load_parts
from cores.checkpoints.runs.origin import Base
from cores.processing import CoresProcessor
from cores.recipe import load_recipe
from cores.scenes.kinds import COLOURS, LEARNED, PARTS
from cores.training.start import start

RECIPE = Path(__file__).with_suffix(".yaml")
FIGURES = ("gIoU generated", "gIoU teacher-forced", "absent refused", "present refused", "own tokens", "swapped")
WORDS = (*(kind.name for kind in LEARNED), *COLOURS, *PARTS)


def cores(*words: str | Path) -> None:
    """One command; the benchmark ends where it fails."""
    subprocess.run([sys.executable, "-m", "cores", *map(str, words)], check=True)


def figures_of(source: dict[str, Any]) -> list[str]:
    """A split's figures, in the order of FIGURES."""
    said, forced = source["generated"], source["teacher-forced"]
    answers, sanity = said["answers"], said["sanity"]
    refused = [answers["refusal"], answers["false_refusal"]]
    found = [said["giou"], forced["giou"], *refused, sanity["own_giou"], sanity["swapped_giou"]]
    return ["none" if value is None else f"{value:.3f}" for value in found]


@torch.no_grad()
def write_bases(folder: Path) -> None:
    """A folder of bases: SmolLM2 behind the tiny tower and a projector near its words, and the tiny segmenter."""
    tiny = load_parts(Base({"bases": "shipped"}), dtype=torch.float32)
    words = CoresProcessor.from_pretrained(shipped("cores-tiny")).tokenizer
    language, tokenizer = load_language()
    tower, projector = tiny.mllm.model.vision_tower, tiny.mllm.model.multi_modal_projector
    mllm = make_llava(language, tokenizer, tower.config, ("[LOC]", "[SEG]"))
    mllm.model.vision_tower.load_state_dict(tower.state_dict())
    old = tiny.mllm.get_input_embeddings().weight[[words.convert_tokens_to_ids(word) for word in WORDS]]
    table = mllm.get_input_embeddings().weight
    new = torch.stack([table[tokenizer.encode(f" {word}", add_special_tokens=False)].mean(0) for word in WORDS])
    bridge = bridge_of(old, new)
    ours, width = mllm.model.multi_modal_projector, len(bridge)
    ours.linear_1.weight[:width], ours.linear_1.bias[:width] = projector.linear_1.weight, projector.linear_1.bias
    ours.linear_2.weight.zero_()  # the rest of the hidden layer waits for training
    ours.linear_2.weight[:, :width] = bridge.T @ projector.linear_2.weight
    ours.linear_2.bias.copy_(projector.linear_2.bias @ bridge)
    mllm.save_pretrained(folder / "mllm")
    tokenizer.save_pretrained(folder / "mllm")
    tiny.segmenter.save_pretrained(folder / "segmenter")


def bridge_of(old: Tensor, new: Tensor, ridge: float = 0.01) -> Tensor:
    """From one space of word vectors to another, (256, 576): words (words, width) meet, all else is turned at random.

    What else a patch's vector holds, such as where its object lies, has no word; it keeps its angles and its share.
    """
    turn = torch.linalg.qr(torch.randn(new.shape[1], old.shape[1], generator=torch.Generator().manual_seed(0))).Q.T
    turn = turn * (new.norm(dim=1).mean() / old.norm(dim=1).mean())
    weight = ridge * old.square().sum(1).mean()
    return torch.linalg.solve(old.T @ old + weight * torch.eye(old.shape[1]), old.T @ new + weight * turn)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--lesson", type=int, default=500, help="steps before the chain")
    parser.add_argument("--steps", type=int, default=900, help="steps of the chain; 0 scores what the lesson gave")
    parser.add_argument("--limit", type=int, default=40, help="scenes of each split")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    bases, run, taught = args.out.resolve() / "bases", args.out / "run", args.out / "taught"
    if not (bases / "segmenter" / "config.json").exists():
        write_bases(bases)
    if not (taught / "tokenizer.json").exists():
        recipe = load_recipe(RECIPE, [f"model.bases={bases}"])
        teach(args.out, *start(recipe, 0)[1:], recipe, args.lesson)
    if args.steps:
        again = ["--resume"] if (run / "recipe.yaml").exists() else []
        settings = [f"model.start={taught}", "model.bases=null", f"trainer.max_steps={args.steps}"]
        cores("train", RECIPE, "--out", run, *again, *settings)
    lines = [f"| model | split | {' | '.join(FIGURES)} |", "| --- " * (2 + len(FIGURES)) + "|"]
    for name, model in {"taught": [taught], "chain": [run], "tiny": []}.items():
        scored = args.out / f"scored-{name}"
        if name == "chain" and not args.steps:
            continue
        if not (scored / "results.json").exists():
            cores("eval", *model, "--on", *SPLITS, "--limit", str(args.limit), "--out", scored)
        sources = json.loads((scored / "results.json").read_text("utf-8"))["sources"]
        lines += [f"| {name} | {split} | {' | '.join(figures_of(sources[split]))} |" for split in SPLITS]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
