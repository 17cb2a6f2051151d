"""By which rules a figure was made, and what a reader must know of its data and weights."""

import re
from dataclasses import dataclass
from typing import Literal

from cores.data.sources.refer import SPLIT_BY

Name = Literal["ours", "published"]
Texts = Literal["first", "all"]

# Pictures of the splits: ReasonSeg's by its authors, the others by TensorFlow Datasets' page of ref_coco.
PUBLISHED_COUNTS = {
    "ReasonSeg|train": 239,
    "ReasonSeg|val": 200,
    "ReasonSeg|test": 779,
    **{f"{name}|unc|{split}": n for name in ("refcoco", "refcoco+") for split, n in (
        ("val", 1500), ("testA", 750), ("testB", 750)
    )},
    "refcocog|umd|val": 1300,
    "refcocog|umd|test": 2600,
}  # fmt: skip

REASONSEG = {"explanatory": ("train",), "test": ("testshort", "testlong")}  # splits of the same pictures
REFER = ("refcoco", "refcoco+", "refcocog", "refclef", "grefcoco")

# Published weights by their name, and what they are known to have been trained on beyond a train split.
SEEN = ((re.compile(r"LISA-\d+B(-llama\d)?-v1(?!\.?\d)", re.IGNORECASE), ("ReasonSeg|val",)),)


@dataclass(frozen=True, slots=True)
class Protocol:
    """`published`: the counting rule, the given answer, the first text and the batch of the published programs."""

    name: Name = "ours"
    texts: Texts = "first"

    @property
    def rules(self) -> dict[str, str]:
        """The rules in words."""
        if self.name == "published":
            union = "an empty union counts 1; fp32; 1e-5 on each union and on the count, 1e-10 on cIoU's union"
            return {"name": self.name, "answers": "given (teacher-forced)", "sums": union, "texts": self.texts}
        union = "an empty union counts 1; pixels to ignore are in no sum"
        return {"name": self.name, "sums": union, "texts": self.texts}


def has_seen(model: str, source: str, trained_on: tuple[str, ...] = (), start: str | None = None) -> bool | None:
    """Have these weights been trained on this split? None: not known.

    `trained_on`: sources of the run, if known; `start`: the checkpoint that it went on from, which may have seen more.
    """
    parts = _splits(source)
    if any(parts & _splits(one) for one in trained_on):
        return True
    for name, splits in SEEN:
        if any(name.search(one) for one in (model, start or "")) and any(parts & _splits(one) for one in splits):
            return True
    return False if trained_on and start is None else None


def _splits(source: str) -> set[str]:
    """What a source is made of, so that two share pictures where they share a part: `ReasonSeg|train_val` is two
    splits, and a refer set's rule of splitting may be left out."""
    head, *by, split = source.split("|") if "|" in source else ("", source)
    if head == "ReasonSeg":
        return {f"{head}|{one}" for part in split.split("_") for one in REASONSEG.get(part, (part,))}
    if head in REFER:
        parts = [f"test{letter}" for letter in split[4:] or "ABC"] if split.startswith("test") else [split]
        return {"|".join([head, *(by or [SPLIT_BY.get(head, "unc")]), one]) for one in parts}
    return {source}
