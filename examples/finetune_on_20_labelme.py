"""Fine-tune the model that comes with cores on twenty pictures that were labelled with labelme.

    python examples/finetune_on_20_labelme.py OUT [--labels FOLDER] [--steps 300]

FOLDER holds pictures with labelme's JSON beside them. Without it, OUT/labels gets 20 drawn scenes of kinds that the
model never saw, labelled. OUT/run is the training, OUT/model the model of it, OUT/answer what that says of a picture.
"""

import argparse
import json
import sys
from pathlib import Path

from PIL import Image

from cores.cli import main as program
from cores.data.formats.labelme_files import Labelled, labelme_file
from cores.data.sample import Sample
from cores.masks import Mask, decode
from cores.scenes.source import open_scenes


def cores(*words: str | Path) -> None:
    """One of our commands, shown before it runs; all ends where it fails."""
    sys.stdout.write(f"$ cores {' '.join(map(str, words))}\n")
    if code := program([str(word) for word in words]):
        raise SystemExit(code)


def things_of(scene: Sample) -> dict[str, Mask]:
    """What a label can say of a scene: the mask of each question about one thing."""
    turns = [turn for conversation in scene.conversations for turn in conversation.turns]
    single = [turn for turn in turns if len(turn.targets) == 1 and turn.form in ("phrase", "sentence")]
    return {turn.query: decode(turn.targets[0].mask) for turn in single}


def draw_labelled(folder: Path, count: int) -> None:
    """Write scenes as a person would leave them in labelme: pictures, and a JSON beside each."""
    folder.mkdir(parents=True)
    for number, scene in enumerate(open_scenes("train", count, kinds="own")[i] for i in range(count)):
        assert isinstance(scene.image, Image.Image)
        scene.image.save(folder / f"{number}.png")
        found = [Labelled(query, mask) for query, mask in things_of(scene).items()]
        (folder / f"{number}.json").write_text(json.dumps(labelme_file(found, f"{number}.png", scene.size)))


def train(labels: Path, run: Path, steps: int) -> None:
    """Learn a folder of labelme's, with as many scenes of the old world, so that it is not forgotten."""
    sources = json.dumps({"own": [f"labelme:{labels.name}"], "old": ["scenes|train"]})
    settings = [f"data.sources={sources}", "evaluation.sources=[]", f"trainer.max_steps={steps}"]
    cores("train", "tiny-own", "--data", labels.parent, "--out", run, *settings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--labels", type=Path, help="a folder of your own")
    parser.add_argument("--steps", type=int, default=300)
    args = parser.parse_args()
    labels = (args.labels or args.out / "labels").resolve()
    if args.labels is None:
        draw_labelled(labels, 20)
    cores("data", "check", labels.parent, "--source", f"labelme:{labels.name}", "--model", "shipped")
    train(labels, args.out / "run", args.steps)
    cores("merge", args.out / "run", "--out", args.out / "model")
    first = min(labels.glob("*.json"))
    annotation = json.loads(first.read_text("utf-8"))
    query = annotation["shapes"][0]["label"]
    cores(
        "predict", labels / annotation["imagePath"], query, "--model", args.out / "model", "--out", args.out / "answer"
    )


if __name__ == "__main__":
    main()
