"""What an evaluation found: sums that add up over ranks and sources, and one record a question for the report."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from cores.evaluation.counts import Counts
from cores.evaluation.metrics import AnswerMetrics, MaskMetrics, Ratio, values
from cores.masks import RLE

# Upper ends of the bins by a target's share of the picture (the published `train_ds` logs these three).
SIZES = {"small (< 2.8 %)": 0.028, "medium": 0.115, "large (> 11.5 %)": float("inf")}

M = TypeVar("M", MaskMetrics, "Family")


def size_bin(share: float) -> str:
    """The name of the bin for a target that covers this share of the picture, 0 to 1."""
    return next(name for name, end in SIZES.items() if share <= end)


@dataclass
class Family:
    """Questions of one kind: their masks and their answers."""

    masks: MaskMetrics = field(default_factory=MaskMetrics)
    answers: AnswerMetrics = field(default_factory=AnswerMetrics)

    def __add__(self, other: "Family") -> "Family":
        return Family(self.masks + other.masks, self.answers + other.answers)

    def ratios(self) -> dict[str, Ratio]:
        """Every figure by name as a sum over a sum."""
        return {**self.masks.ratios(), **self.answers.ratios()}

    def compute(self) -> dict[str, Any]:
        """Every figure by name: how many masks, those of the masks, those of the answers."""
        return {"masks": self.masks.count, **self.masks.compute(), **self.answers.compute()}


@dataclass
class Sanity:
    """Does the model use its tokens, and what is the location level worth?

    Over pairs of questions about one image whose targets do not overlap: `own`, the first target of each with its own
    prompt tokens; `swapped`, with the other question's; `foreground`, a mask of the whole picture. A model that
    ignores its tokens has swapped = own; one that uses them falls below foreground. Over all targets:
    `without_location`, without mask prompt and refiner step at the last level.
    """

    own: MaskMetrics = field(default_factory=MaskMetrics)
    swapped: MaskMetrics = field(default_factory=MaskMetrics)
    foreground: MaskMetrics = field(default_factory=MaskMetrics)
    without_location: MaskMetrics = field(default_factory=MaskMetrics)

    def __add__(self, other: "Sanity") -> "Sanity":
        return Sanity(
            self.own + other.own,
            self.swapped + other.swapped,
            self.foreground + other.foreground,
            self.without_location + other.without_location,
        )

    def ratios(self) -> dict[str, Ratio]:
        """gIoU of each by name as a sum over a count."""
        names = ("own", "swapped", "foreground", "without_location")
        return {f"{name}_giou": getattr(self, name).ratios()["giou"] for name in names}

    def compute(self) -> dict[str, Any]:
        """gIoU of each by name, fractions of 1 (nan for none), and how many questions were paired."""
        return {"questions": self.own.count, **values(self.ratios())}


@dataclass
class Score:
    """All sums for one way of answering. `masks` is over targets, a missing one counting 0.

    `best`: as `masks`, with each target's mask found by best assignment instead of by the answer's order.
    """

    masks: MaskMetrics = field(default_factory=MaskMetrics)
    answers: AnswerMetrics = field(default_factory=AnswerMetrics)
    sizes: dict[str, MaskMetrics] = field(default_factory=lambda: {name: MaskMetrics() for name in SIZES})
    kinds: dict[str, Family] = field(default_factory=dict)
    sanity: Sanity = field(default_factory=Sanity)
    best: MaskMetrics = field(default_factory=MaskMetrics)

    def add(self, counts: Counts) -> None:
        """Count one answer."""
        family = self.kinds.setdefault(counts.kind, Family()) if counts.kind else Family()
        for found in counts.overlaps:
            self.masks.add(found)
            family.masks.add(found)
        for found in counts.matched:
            self.best.add(found)
        for found, share in zip(counts.overlaps, counts.shares, strict=False):  # what is absent has no size
            self.sizes[size_bin(share)].add(found)
        if counts.mode == "generated":
            for into in (self.answers, family.answers):
                into.update(counts.targets, counts.chains, counts.refused, counts.masked, counts.right_form)

    def __add__(self, other: "Score") -> "Score":
        return Score(
            self.masks + other.masks,
            self.answers + other.answers,
            _join(self.sizes, other.sizes),
            _join(self.kinds, other.kinds),
            self.sanity + other.sanity,
            self.best + other.best,
        )

    def ratios(self) -> dict[tuple[str, ...], Ratio]:
        """Every figure as a sum over a sum, by its path in `compute`."""
        parts: dict[tuple[str, ...], dict[str, Ratio]] = {
            (): self.masks.ratios(),
            ("best_assignment",): self.best.ratios(),
            ("answers",): self.answers.ratios(),
            **{("sizes", name): found.ratios() for name, found in self.sizes.items()},
            **{("kinds", name): self.kinds[name].ratios() for name in sorted(self.kinds)},
            ("sanity",): self.sanity.ratios(),
        }
        return {(*path, name): ratio for path, found in parts.items() for name, ratio in found.items()}

    def compute(self) -> dict[str, Any]:
        """Every figure by name; fractions of 1, nan where there was nothing to count."""
        return {
            "masks": self.masks.count,
            **self.masks.compute(),
            "best_assignment": {"masks": self.best.count, **self.best.compute()},
            "answers": self.answers.compute(),
            "sizes": {name: {"masks": m.count, **m.compute()} for name, m in self.sizes.items()},
            "kinds": {name: self.kinds[name].compute() for name in sorted(self.kinds)},
            "sanity": self.sanity.compute(),
        }


@dataclass(frozen=True, slots=True)
class Record:
    """One question and its answer in one mode.

    `sample` and `question`: the numbers of the sample and of the question within it. `image`: its file's name.
    `levels`: for every chain, the run lengths of each level's mask by the level's name. `truth`: the targets' run
    lengths, in order. `ious`: one a mask that counts: a target, or for an image without targets, given an answer, the
    one that should be empty. `cut`: the answer reached the most tokens allowed before it ended. `counts`: all that
    figures are made of. `similarity`: for every chain, `SimilarityMap.to_dict` by the level's name, where asked for.
    `signals`: of every chain, `confidence.SIGNALS`, and `confidences` made of them; `absent`, `refusal`: the same of
    an absence; of one who has such.
    """

    sample: int
    question: int
    image: str
    mode: str
    query: str
    sentence: str
    status: str
    score: float
    ious: tuple[float, ...]
    truth: tuple[RLE, ...]
    levels: tuple[dict[str, RLE], ...]
    kind: str | None = None
    cut: bool = False
    counts: Counts | None = None
    similarity: tuple[dict[str, dict[str, Any]], ...] | None = None
    signals: tuple[tuple[float, ...], ...] = ()
    confidences: tuple[float, ...] = ()
    absent: float | None = None
    refusal: float | None = None

    @classmethod
    def read(cls, line: Mapping[str, Any]) -> "Record":
        """From a line of `answers.jsonl`, read as JSON."""
        found = {field.name: line[field.name] for field in fields(cls) if field.name in line}
        score = float("nan") if found["score"] is None else found["score"]
        counts = None if found.get("counts") is None else Counts.read(found["counts"])
        lists = {name: tuple(found[name]) for name in ("ious", "truth", "levels")}
        lists["confidences"] = tuple(found.get("confidences", ()))
        lists["signals"] = tuple(tuple(one) for one in found.get("signals", ()))
        return cls(**{**found, **lists, "score": score, "counts": counts})

    @property
    def iou(self) -> float:
        """Mean over the targets; for something absent, 1 when no mask was drawn and 0 otherwise."""
        if self.ious:
            return sum(self.ious) / len(self.ious)
        drawn = bool(self.levels) if self.counts is None else self.counts.masked  # an empty mask is none
        return 0.0 if drawn else 1.0

    @property
    def right_about_presence(self) -> bool:
        """Is there a chain where something is, and no mask where nothing is?"""
        return bool(self.levels) if self.truth else self.iou == 1


@dataclass
class Result:
    """An evaluation: the scores by mode (`generated`, `teacher-forced`), and records when they were asked for."""

    scores: dict[str, Score] = field(default_factory=dict)
    images: int = 0
    questions: int = 0
    records: list[Record] = field(default_factory=list)

    def __add__(self, other: "Result") -> "Result":
        both = {name: self.scores.get(name, Score()) for name in {**self.scores, **other.scores}}
        return Result(
            {name: score + other.scores.get(name, Score()) for name, score in both.items()},
            self.images + other.images,
            self.questions + other.questions,
            self.records + other.records,
        )

    def compute(self) -> dict[str, Any]:
        """Every figure by mode and name, ready for JSON but for nan."""
        scores = {name: score.compute() for name, score in self.scores.items()}
        return {"images": self.images, "questions": self.questions, **scores}


def _join(one: Mapping[str, M], two: Mapping[str, M]) -> dict[str, M]:
    result = dict(one)
    for name, value in two.items():
        result[name] = result[name] + value if name in result else value
    return result
