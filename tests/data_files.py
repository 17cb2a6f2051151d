"""Small data sets in their real forms, for tests: pictures some of which are odd, pairs, label maps, conversations."""

import json

import numpy as np
from PIL import Image

PLACES = {
    "ade20k": ("ade20k/images/training", "ade20k/annotations/training"),
    "cocostuff": ("coco/train2017", "cocostuff/train2017"),
    "mapillary": ("mapillary/training/images", "mapillary/training/v2.0/labels"),
}
READABLE = ["Bird", "Ground Animal", "Lane Marking - Other", "Unlabeled"]
LLAVA = "llava_dataset/llava_instruct_150k.json"


def write_picture(path, size=(20, 30), orientation=None):
    """A picture of `size` (h, w) as stored, with an EXIF orientation when one is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.fromarray(values).save(path, exif=exif)
    return path


def square(left, top, right, bottom, label="target"):
    return {"label": label, "points": [[left, top], [right, top], [right, bottom], [left, bottom]]}


def write_pair(root, name, split="train", texts=("what?",), shapes=(), sentence=True, encoding="utf-8", **picture):
    folder = root / "reason_seg" / "ReasonSeg" / split
    write_picture(folder / f"{name}.jpg", **picture)
    record = {"text": list(texts), "is_sentence": sentence, "shapes": list(shapes)}
    (folder / f"{name}.json").write_bytes(json.dumps(record, ensure_ascii=False).encode(encoding))
    return folder


def write_map(root, name, values, mode="L", stem="a", **picture):
    images, labels = (root / place for place in PLACES[name])
    write_picture(images / f"{stem}.jpg", **({"size": values.shape} | picture))
    labels.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values.astype(np.uint8))
    if mode == "P":
        image = image.convert("P")
        image.putdata(values.ravel().tolist())
        image.putpalette([9, 9, 9] * 256)  # all classes in one colour
    image.save(labels / f"{stem}.png")
    if name == "mapillary":
        config = {"labels": [{"readable": readable, "name": readable.lower()} for readable in READABLE]}
        (root / "mapillary" / "config_v2.0.json").write_text(json.dumps(config))


def rows(*values):
    """A label map (20, 30) in horizontal bands."""
    return np.repeat(np.array(values), 20 // len(values))[:, None] * np.ones((1, 30), int)


def say(*texts, first="human"):
    speakers = ["human", "gpt"] if first == "human" else ["gpt", "human"]
    return [{"from": speakers[n % 2], "value": text} for n, text in enumerate(texts)]


def write_records(root, *talks):
    records = [{"id": str(n), "image": "000000000001.jpg", "conversations": talk} for n, talk in enumerate(talks)]
    (root / "llava_dataset").mkdir(exist_ok=True)
    (root / LLAVA).write_text(json.dumps(records))
    write_picture(root / "coco" / "train2017" / "000000000001.jpg")
