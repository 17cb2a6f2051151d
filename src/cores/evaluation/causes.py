"""Why a target was missed: what went wrong first, in the order in which the chain does its steps."""

from collections import Counter
from collections.abc import Iterable, Sequence

from cores.evaluation.counts import Counts

RIGHT = 0.5  # IoU from which a target counts as found; and share of a target that a right location covers
ELSEWHERE = 0.1  # IoU below which a mask is of something else

NOT_SAID = "no [SEG] said"
EMPTY = "empty mask"
WRONG_PLACE = "wrong place"
BOUNDARY = "right place, wrong outline"
INVENTED = "a mask where nothing is"
LOCATION = "location wrong"
TARGET = "location right, target wrong"
CAUSES = (NOT_SAID, EMPTY, WRONG_PLACE, BOUNDARY, INVENTED)
BY_LEVEL = (LOCATION, TARGET)


def causes_of(counts: Counts, areas: Sequence[int]) -> list[str]:
    """What went wrong, for each target that was missed, or for something absent that got a mask.

    `areas`: pixels in the last level's mask of each chain.
    """
    if not counts.targets:
        return [INVENTED] if counts.masked else []
    found = []
    for i, shared in enumerate(counts.overlaps):
        if shared.iou >= RIGHT:
            continue
        if i >= counts.chains:
            found.append(NOT_SAID)
        elif not areas[i]:
            found.append(EMPTY)
        else:
            found.append(WRONG_PLACE if shared.iou < ELSEWHERE else BOUNDARY)
    return found


def by_level(counts: Counts) -> list[str]:
    """For each missed target with a location: was the location wrong, or only what was drawn from it?"""
    missed = zip(counts.overlaps, counts.covered, strict=False)
    return [LOCATION if share < RIGHT else TARGET for o, share in missed if o.iou < RIGHT and share is not None]


def tally(found: Iterable[Iterable[str]]) -> Counter[str]:
    """How often each cause came."""
    return Counter(cause for causes in found for cause in causes)
