"""A checkpoint's confidence, fitted to answers whose truth is known."""

from collections.abc import Iterable

import numpy as np

from cores.asking.confidence import SIGNALS, Confidence, Fit
from cores.errors import CheckFailed
from cores.evaluation.result import Record

FEWEST = 50  # of masks: fewer say little about four numbers


def fit_confidence(records: Iterable[Record], about: str) -> Confidence:
    """That of the model which gave these answers, of one mode. `about`: what they were answers to.

    Masks are fitted to the IoU of their target, in order; a refusal, where some things were absent and others were
    not. Raises CheckFailed when there are too few masks.
    """
    signals, ious, absent, nothing = [], [], [], []
    for record in records:
        for one, iou in zip(record.signals, record.ious, strict=False):
            if record.truth and one[-1] > 0:  # an empty mask's confidence is 0 without a fit
                signals.append(one)
                ious.append(iou)
        if record.absent is not None:
            absent.append([record.absent])
            nothing.append(float(not record.truth))
    if len(signals) < FEWEST:
        raise CheckFailed(f"a confidence cannot be fitted to {len(signals)} masks: {FEWEST} are the fewest")
    masks = Fit.of(np.array(signals, dtype=np.float64).reshape(-1, len(SIGNALS)), np.array(ious))
    both = 0 < sum(nothing) < len(nothing)
    refusal = Fit.of(np.array(absent, dtype=np.float64), np.array(nothing)) if both else None
    return Confidence(masks, refusal, f"{about}: {len(signals)} masks, {len(absent)} answers")
