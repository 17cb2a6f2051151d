"""A student of the chain in words: its answers on pictures, as a manifest, are what a model is trained on.

    python benchmarks/words_student.py words:taught/model+shipped --pictures 400 --out labels
    cores train tiny --data labels --out student trainer.max_steps=300 "data.sources={scenes: [manifest:train.jsonl]}"
    cores eval student --on 'scenes|test' --out scored

Of the scenes' own answers nothing is used: of each picture only its questions. What was not found is a refusal;
what it said in text alone is left out. Prints how good the labels are.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

import cores
from cores import masks
from cores.inference.segmentation import Segmentation
from cores.masks import Mask
from cores.scenes.source import open_scenes


def line_of(image: str, found: Segmentation, form: str) -> dict[str, Any]:
    """A question with the answer that was found, as `manifest:PATH` reads it."""
    targets = []
    for target in found.targets:
        named = {"phrase": target.phrase} if target.named and len(found.targets) > 1 else {}
        targets.append({"mask": target.rle, "location": target.levels[0].rle, **named})
    return {"image": image, "query": found.query, "form": form, "targets": targets}


def iou(found: Mask, truth: Mask) -> float:
    joint = int((found | truth).sum())
    return float((found & truth).sum() / joint) if joint else 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="words:MLLM+SEGMENTER, or a YAML file")
    parser.add_argument("--out", type=Path, required=True, help="folder to write: scenes/*.png and train.jsonl")
    parser.add_argument("--pictures", type=int, default=400)
    args = parser.parse_args()
    model, source = cores.load(args.model), open_scenes("train", n=args.pictures)
    (args.out / "scenes").mkdir(parents=True)
    lines, scores, right = [], [], []
    for i in tqdm(range(len(source)), desc="labelling", unit="img"):
        sample = source[i]
        turns = [c.turns[0] for c in sample.conversations if c.turns[0].form != "raw"]
        picture = sample.image
        assert isinstance(picture, Image.Image)
        name = f"scenes/{sample.meta['name']}.png"
        picture.save(args.out / name)
        for turn, found in zip(turns, model.segment(picture, [turn.query for turn in turns]), strict=True):
            right.append((found.status == "segmented") == bool(turn.targets))
            if turn.targets:
                scores.append(iou(found.mask, np.logical_or.reduce([masks.decode(t.mask) for t in turn.targets])))
            empty = any(not target.mask.any() for target in found.targets)
            if found.status != "text" and not empty:
                lines.append(line_of(name, found, "sentence" if turn.form == "explain" else turn.form))
    (args.out / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    said = (
        f"{len(lines)} labels of {len(right)} questions; mean IoU {np.mean(scores):.3f} with the truth, presence right"
    )
    sys.stdout.write(f"{said} in {np.mean(right):.1%}\n")


if __name__ == "__main__":
    main()
