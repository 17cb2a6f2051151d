"""Predict, correct, learn, and see that it got better: the loop in which pictures of one's own are labelled.

    python examples/correct_and_learn.py OUT [--pictures 20] [--steps 300]

The pictures are scenes of kinds that the model never saw. In place of a person who corrects the labelme files in
OUT/labels, the true masks stand in wherever an answer is wrong; what is right already is left as it was predicted.
"""

import argparse
import json
import sys
from pathlib import Path

from finetune_on_20_labelme import things_of, train
from PIL import Image

import cores
from cores.data.formats.labelme_files import Labelled, labelme_file
from cores.data.sample import Sample
from cores.inference.exports import to_labelme
from cores.masks import Mask
from cores.scenes.source import open_scenes

RIGHT = 0.8  # IoU from which nobody would move a point


def iou(found: Mask, truth: Mask) -> float:
    return float((found & truth).sum() / (found | truth).sum())


def predict(model: cores.Cores, scene: Sample, name: str, folder: Path) -> list[float]:
    """Answer the questions about a scene, as a picture and its labelme file; gives each answer's IoU."""
    assert isinstance(scene.image, Image.Image)
    scene.image.save(folder / f"{name}.png")
    truth = things_of(scene)
    results = model.segment(scene.image, list(truth))
    (folder / f"{name}.json").write_text(json.dumps(to_labelme(results, f"{name}.png")), "utf-8")
    return [iou(found.mask, truth[found.query]) for found in results]


def correct(scene: Sample, file: Path, ious: list[float]) -> int:
    """In place of labelme and a person: shapes that are wrong or missing give way to true ones. Gives how many."""
    label = json.loads(file.read_text("utf-8"))
    wrong = {query: mask for (query, mask), one in zip(things_of(scene).items(), ious, strict=True) if one < RIGHT}
    kept = [shape for shape in label["shapes"] if shape["label"] not in wrong]
    drawn = labelme_file([Labelled(*pair) for pair in wrong.items()], label["imagePath"], scene.size)["shapes"]
    taken = 1 + max((shape["group_id"] for shape in kept), default=0)
    label["shapes"] = kept + [shape | {"group_id": taken + shape["group_id"]} for shape in drawn]
    file.write_text(json.dumps(label), "utf-8")
    return len(wrong)


def score(model: cores.Cores, scenes: list[Sample]) -> float:
    """Mean IoU over the questions about scenes that were never trained on."""
    found = []
    for scene in scenes:
        truth = things_of(scene)
        found += [iou(one.mask, truth[one.query]) for one in model.segment(scene.image, list(truth))]
    return sum(found) / len(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pictures", type=int, default=20)
    parser.add_argument("--steps", type=int, default=300)
    args = parser.parse_args()
    mine, unseen = (
        [source[number] for number in range(args.pictures)]
        for source in (open_scenes(split, args.pictures, kinds="own") for split in ("train", "val"))
    )
    labels = args.out.resolve() / "labels"
    labels.mkdir(parents=True)
    model = cores.load()
    before = score(model, unseen)
    corrected = asked = 0
    for number, scene in enumerate(mine):
        ious = predict(model, scene, str(number), labels)
        corrected += correct(scene, labels / f"{number}.json", ious)
        asked += len(ious)
    sys.stdout.write(f"{corrected} of {asked} labels corrected\n")
    train(labels, args.out / "run", args.steps)
    after = score(cores.load(args.out / "run"), unseen)
    sys.stdout.write(f"mean IoU on scenes never seen: {before:.3f} before, {after:.3f} after\n")


if __name__ == "__main__":
    main()
