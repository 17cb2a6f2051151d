"""Does real language help with wordings never seen? A short fine-tune on the scenes with SmolLM2 in the tiny model.

python benchmarks/real_language.py --out runs/real-language [--steps 400] [--limit 40]

The vision tower and the segmenter are those of the bases that come with cores; the language model is benchmarks/smollm's,
with LoRA; the projector begins as the tiny one's, turned towards this model's words. Goes on when stopped; what was
trained by then can be scored with --steps 0. benchmarks/real_language.md tells what came out.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from smollm import load_language, make_llava
from torch import Tensor

from cores.checkpoints.runs.bases import load_parts
from cores.checkpoints.runs.origin import Base
from cores.checkpoints.find import shipped
from cores.processing import CoresProcessor
from cores.scenes.kinds import COLOURS, LEARNED, PARTS

RECIPE = Path(__file__).with_suffix(".yaml")
SPLITS = ("scenes|phrasing", "scenes|test")
WORDS = (*(kind.name for kind in LEARNED), *COLOURS, *PARTS)


def cores(*words: str | Path) -> None:
    """One command; the benchmark ends where it fails."""
    subprocess.run([sys.executable, "-m", "cores", *map(str, words)], check=True)


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
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--limit", type=int, default=40, help="scenes of each split")
    parser.add_argument("--dtype", default="float32", help="of what does not train")
    args = parser.parse_args()
    bases, run = args.out / "bases", args.out / "run"
    if not (bases / "segmenter" / "config.json").exists():
        write_bases(bases)
    if args.steps:
        again = ["--resume"] if (run / "recipe.yaml").exists() else []
        settings = [f"model.bases={bases.resolve()}", f"trainer.max_steps={args.steps}", f"model.dtype={args.dtype}"]
        cores("train", RECIPE, "--out", run, *again, *settings)
    models: dict[str, list[Any]] = {"this": [run], "the tiny model": []}
    lines = [
        "| model | split | gIoU generated | gIoU teacher-forced | absent refused | present refused |",
        "| --- " * 6 + "|",
    ]
    for name, model in models.items():
        scored = args.out / f"scored-{name.replace(' ', '-')}"
        if not (scored / "results.json").exists():
            cores("eval", *model, "--on", *SPLITS, "--limit", args.limit, "--no-sanity", "--out", scored)
        sources = json.loads((scored / "results.json").read_text("utf-8"))["sources"]
        for split in SPLITS:
            lines.append(f"| {name} | {split} | {sources[split]}")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
