"""What one answer counts: numbers alone, from which every figure is made, now or later from a file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cores.evaluation.assignment import best_assignment
from cores.evaluation.overlap import Overlap, overlap
from cores.masks import Mask


@dataclass(frozen=True, slots=True)
class Counts:
    """One answer. `kind` of its question; how many `targets` and `chains`.

    `refused` in words; `masked`: any pixel in any mask; `right_form`: a refusal or whole chains, ended by itself.
    `overlaps`: one a mask that counts, in the answer's order; `matched`: the same by best assignment. `shares`: of the
    picture that each target covers. `covered`: share of each target that lies in its chain's location, None where
    there is no such level.
    """

    mode: str
    kind: str | None
    targets: int
    chains: int
    refused: bool
    masked: bool
    right_form: bool
    overlaps: tuple[Overlap, ...]
    matched: tuple[Overlap, ...]
    shares: tuple[float, ...]
    covered: tuple[float | None, ...] = ()

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> "Counts":
        """From what `dataclasses.asdict` made of one, after a way through JSON."""
        pairs = {name: tuple(Overlap(*one) for one in found[name]) for name in ("overlaps", "matched")}
        rest = {name: tuple(found[name]) for name in ("shares", "covered")}
        return cls(**{**found, **pairs, **rest})


def compared(
    drawn: Sequence[Mask], truths: Sequence[Mask], ignore: Mask | None
) -> tuple[tuple[Overlap, ...], tuple[Overlap, ...]]:
    """Overlaps (one a truth) of what was drawn with the truths: in their order, and by best assignment.

    All masks are (h, w). A truth without a mask is held against an empty one; masks beyond the truths count nothing.
    """
    if not truths:
        return (), ()
    nothing = np.zeros_like(truths[0])
    in_order = tuple(overlap(drawn[i] if i < len(drawn) else nothing, t, ignore) for i, t in enumerate(truths))
    if len(truths) == 1 and len(drawn) <= 1:
        return in_order, in_order
    worth = [[overlap(mask, truth, ignore, boundaries=False).iou for mask in drawn] for truth in truths]
    chosen = best_assignment(worth)
    if chosen == [i if i < len(drawn) else None for i in range(len(truths))]:
        return in_order, in_order
    masks = [nothing if i is None else drawn[i] for i in chosen]
    return in_order, tuple(overlap(mask, truth, ignore) for mask, truth in zip(masks, truths, strict=True))


def covered(locations: Sequence[Mask | None], truths: Sequence[Mask]) -> tuple[float | None, ...]:
    """Share of each truth inside the location that goes with it by order, None where there is none. All are (h, w)."""
    found: list[float | None] = []
    for i, truth in enumerate(truths):
        location = locations[i] if i < len(locations) else None
        inside = 0 if location is None else np.count_nonzero(location & truth)
        found.append(None if location is None or not truth.any() else float(inside / np.count_nonzero(truth)))
    return tuple(found)
