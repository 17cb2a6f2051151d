"""An evaluation's figures as tables of text; the report shows the same tables in HTML."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from cores.asking.confidence import calibration_error
from cores.evaluation.causes import BY_LEVEL, CAUSES, INVENTED
from cores.evaluation.figures import Figures
from cores.evaluation.glance import BINS, Glance
from cores.evaluation.intervals import Interval
from cores.evaluation.metrics import THRESHOLDS
from cores.evaluation.result import Family, Result, Score

NOTHING = "–"
BLOCK = "█"  # of a bar


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under named columns; the first column names the row. `note` says how to read it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def __str__(self) -> str:
        lines = [self.columns, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        text = []
        for line in lines:
            cells = [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]
            text.append("  ".join(cells).rstrip())
        text.insert(1, "-" * max(map(len, text)))
        return "\n".join([self.title, *text, *([self.note] if self.note else [])])


def number(value: float) -> str:
    """An IoU, a fraction of 1, or a loss: three decimals, a dash for nothing."""
    return NOTHING if math.isnan(value) else f"{value:.3f}"


def percent(value: float) -> str:
    """A share, 0 to 1, in percent: one decimal, a dash for nothing."""
    return NOTHING if math.isnan(value) else f"{100 * value:.1f} %"


def summary(results: Mapping[str, Result]) -> Table:
    """One row for each source and mode: how many masks, gIoU, cIoU, precision, refusals."""
    precision = tuple(f"P@{t}" for t in THRESHOLDS)
    rows = []
    for name, result in results.items():
        for mode, score in result.scores.items():
            masks, answers = score.masks.compute(), score.answers.compute()
            row = [f"{name}, {mode}", str(score.masks.count), number(masks["giou"]), number(masks["ciou"])]
            row += [percent(masks[p.lower()]) for p in precision]
            row += [percent(answers[key]) for key in ("refusal", "false_refusal", "n_acc", "t_acc")]
            rows.append(tuple(row))
    columns = ("source, answers", "masks", "gIoU", "cIoU", *precision, "refused", "wrongly refused", "N-acc", "T-acc")
    note = (
        "refused: absent targets refused in words; wrongly refused: present ones. "
        "N-acc, T-acc: no mask where nothing is, some mask where something is."
    )
    return Table("Summary", columns, tuple(rows), note)


def with_interval(value: float, found: Interval | None) -> str:
    """A figure and the two ends of its interval."""
    if found is None or math.isnan(value) or math.isnan(found[0]):
        return number(value)
    return f"{value:.3f} ({found[0]:.3f} to {found[1]:.3f})"


def intervals(figures: Mapping[str, Figures]) -> Table:
    """The figures of each source and mode with their intervals, and the gap between the modes."""
    names = {"giou": "gIoU", "ciou": "cIoU", "miou": "mIoU", "boundary_iou": "boundary IoU"}
    rows = []
    for source, found in figures.items():
        for mode, score in found.result.scores.items():
            known = {**score.masks.compute(), **(found.published or {})}
            cells = [with_interval(known[name], found.intervals.get((mode, name))) for name in names]
            best = with_interval(score.best.compute()["giou"], found.intervals.get((mode, "best_assignment", "giou")))
            form = percent(score.answers.compute()["right_form"])
            rows.append((f"{source}, {mode}", *cells, best, form))
        if found.gaps:
            gaps = [with_interval(*found.gaps[name]) if name in found.gaps else NOTHING for name in names]
            rows.append((f"{source}, generated - teacher-forced", *gaps, NOTHING, NOTHING))
    note = (
        "In brackets: 95 % intervals, by drawing pictures again. Best assignment: each target with the mask that fits "
        "it, whatever the answer's order. Right form: answers that are a refusal or whole chains."
    )
    columns = ("source, answers", *names.values(), "gIoU, best assignment", "right form")
    return Table("With intervals", columns, tuple(rows), note)


def sizes(score: Score) -> Table:
    """Masks by the share of the picture that the target covers."""
    rows = tuple(
        (name, str(m.count), number(m.compute()["giou"]), number(m.compute()["ciou"]))
        for name, m in score.sizes.items()
        if m.count
    )
    return Table("By size of the target", ("share of the picture", "masks", "gIoU", "cIoU"), rows)


def kinds(score: Score) -> Table:
    """Masks and answers by kind of question; no rows when the samples do not name kinds."""
    rows = tuple(_kind(name, score.kinds[name]) for name in sorted(score.kinds))
    columns = ("kind of question", "masks", "gIoU", "cIoU", "refused", "wrongly refused")
    return Table("By kind of question", columns, rows)


def sanity(score: Score) -> Table:
    """The sanity figures beside what they are compared with."""
    found = score.sanity
    rows: list[tuple[str, ...]] = []
    note = ""
    if found.own.count:
        giou = {name: getattr(found, name).compute()["giou"] for name in ("own", "swapped", "foreground")}
        note = "Pairs of questions about one image whose targets do not overlap exchanged their prompt tokens."
        verdict = "falls below it" if giou["swapped"] < giou["foreground"] else "DOES NOT FALL BELOW IT"
        rows = [
            ("own prompt tokens", str(found.own.count), number(giou["own"])),
            ("tokens of the other question", str(found.own.count), number(giou["swapped"])),
            (f"whole picture as mask: swapped {verdict}", str(found.own.count), number(giou["foreground"])),
        ]
    if found.without_location.count:
        rows += [
            ("all targets", str(score.masks.count), number(score.masks.compute()["giou"])),
            (
                "all targets, without the location level",
                str(found.without_location.count),
                number(found.without_location.compute()["giou"]),
            ),
        ]
    return Table("Does it use its tokens?", ("masks drawn from", "masks", "gIoU"), tuple(rows), note)


def spread(seen: Glance) -> Table:
    """How the targets' IoUs are spread."""
    largest = max(seen.bins)
    rows = tuple(
        (f"{i / BINS:.2f} to {(i + 1) / BINS:.2f}", str(n), BLOCK * round(24 * n / largest) if n else "")
        for i, n in enumerate(seen.bins)
    )
    return Table("Targets by their IoU", ("IoU", "targets", ""), rows if largest else ())


def failures(seen: Glance) -> Table:
    """Why targets were missed."""
    of = {**dict.fromkeys(CAUSES, seen.targets), INVENTED: seen.absent, **dict.fromkeys(BY_LEVEL, seen.located)}
    rows = tuple(
        (cause, str(seen.causes[cause]), percent(seen.causes[cause] / of[cause]) if of[cause] else NOTHING)
        for cause in (*CAUSES, *BY_LEVEL)
        if seen.causes[cause]
    )
    note = (
        "A target is missed below an IoU of 0.5; its place is wrong below 0.1. A mask where nothing is: of the "
        "questions about what is absent. A location is right when it covers half of the target; shares there are of "
        "the targets that have one."
    )
    return Table("Failures by cause", ("cause", "targets", "share"), rows, note)


def calibration(seen: Glance) -> Table:
    """Does the model's confidence tell good masks from bad ones, and does it mean what it says?"""
    rows = tuple((f"{score:.3f}", number(iou), str(count)) for score, iou, count in seen.calibration)
    if not seen.sure:
        note = "Answers in groups of equal size by their score: the mean probability of the answer's tokens."
        return Table("Score and IoU", ("score", "mean IoU", "answers"), rows, note)
    errors = [calibration_error(pairs) for pairs in (seen.sure, seen.refusals)]
    note = (
        "Targets that were drawn, in groups of equal size by the confidence of their masks; what is absent is left "
        f"out. Expected calibration error: {errors[0]:.3f} of masks, {errors[1]:.3f} of the probability that nothing "
        "is there."
    )
    return Table("Confidence and IoU", ("confidence", "mean IoU", "targets"), rows, note)


def _kind(name: str, family: Family) -> tuple[str, ...]:
    masks, answers = family.masks.compute(), family.answers.compute()
    shares = (percent(answers["refusal"]), percent(answers["false_refusal"]))
    return (name, str(family.masks.count), number(masks["giou"]), number(masks["ciou"]), *shares)
