"""Scenes as files: ReasonSeg's folders, for those who read ReasonSeg, and a manifest that keeps everything.

DIR/reason_seg/ReasonSeg/SPLIT/X.png + X.json: one question and one union mask, as polygons, each with a picture of its
own, as that format wants it; a question for something that is not there has no polygon. DIR/SPLIT.jsonl: every
question of every scene, several targets and text among them, with exact masks and locations, about DIR/scenes/*.png.
"""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from cores.data.sample import Sample, Turn
from cores.masks import Mask, decode
from cores.scenes.source import Scenes


def write_scenes(scenes: Scenes, folder: Path, progress: bool = True) -> dict[str, int]:
    """Write the scenes of a source under its split's name.

    Returns how many `scenes`, `questions` (in the manifest) and `files` (ReasonSeg pairs) there are.
    """
    pictures, pairs = folder / "scenes", folder / "reason_seg" / "ReasonSeg" / scenes.split
    pictures.mkdir(parents=True, exist_ok=True)
    pairs.mkdir(parents=True, exist_ok=True)
    lines: list[dict[str, Any]] = []
    files = 0
    for i in tqdm(range(len(scenes)), desc=f"writing {scenes.split}", unit="scene", disable=not progress):
        sample = scenes[i]
        picture = sample.image
        assert isinstance(picture, Image.Image)
        name = sample.meta["name"]
        picture.save(pictures / f"{name}.png")
        lines += _manifest_lines(sample, f"scenes/{name}.png")
        for number, conversation in enumerate(sample.conversations):
            record = _reasonseg(conversation.turns[0])
            if record is not None:
                picture.save(pairs / f"{name}-{number}.png")
                (pairs / f"{name}-{number}.json").write_text(json.dumps(record), "utf-8")
                files += 1
    (folder / f"{scenes.split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return {"scenes": len(scenes), "questions": len(lines), "files": files}


def _manifest_lines(sample: Sample, image: str) -> list[dict[str, Any]]:
    """One line a question, as `manifest:PATH` reads it."""
    lines = []
    for conversation, family in zip(sample.conversations, sample.meta["kinds"], strict=True):
        turn = conversation.turns[0]
        line: dict[str, Any] = {"image": image, "query": turn.query, "form": turn.form, "kind": family}
        if turn.answer is not None:
            line["explanation" if turn.form == "explain" else "answer"] = turn.answer
        line["targets"] = [
            {"mask": t.mask, "location": t.location} | ({"phrase": t.phrase} if t.phrase else {}) for t in turn.targets
        ]
        lines.append(line)
    return lines


def _reasonseg(turn: Turn) -> dict[str, Any] | None:
    """A question as a file of ReasonSeg's; None for what that format cannot hold: text only, several targets."""
    if turn.form == "raw" or len(turn.targets) > 1:
        return None
    polygons = [polygon for target in turn.targets for polygon in outlines(decode(target.mask))]
    shapes = [{"label": "target", "shape_type": "polygon", "points": points.tolist()} for points in polygons]
    return {"text": [turn.query], "is_sentence": turn.form != "phrase", "shapes": shapes}


def outlines(mask: Mask) -> list[NDArray[np.float64]]:
    """Polygons (points, 2) of x, y that fill exactly this mask (h, w) when painted with their outline.

    A polygon cannot have a hole: each hole is reached by a cut from the nearest point of the outline, there and back.
    """
    rings, tree = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    found = []
    for number, ring in enumerate(rings):
        if tree[0][number][3] >= 0:
            continue  # a hole: it comes with the outline around it
        points = ring[:, 0].astype(float)
        for hole, entry in zip(rings, tree[0], strict=True):
            if entry[3] == number:
                points = _cut_in(points, hole[:, 0].astype(float))
        found.append(points)
    return found


def _cut_in(outline: NDArray[np.float64], hole: NDArray[np.float64]) -> NDArray[np.float64]:
    """One closed path around the outline and, by way of the shortest cut, around the hole."""
    distance = np.square(outline[:, None] - hole[None]).sum(-1)
    at, to = np.unravel_index(int(distance.argmin()), distance.shape)
    inner = np.concatenate([hole[to:], hole[: to + 1]])
    return np.concatenate([outline[: at + 1], inner, outline[at:]])
