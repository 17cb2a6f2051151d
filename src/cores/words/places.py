"""Where an answer in words points: a location with its targets' boxes, and which of these are one target."""

from collections.abc import Sequence
from dataclasses import dataclass

from cores.processing.reading import Status
from cores.words.boxes import Box
from cores.words.hearing import Heard, Pointed


@dataclass(frozen=True, slots=True)
class Place:
    """One box of a first answer with its label, and the targets there. Where the target is asked for at once, it is
    the one target, and there is no location."""

    label: str | None
    location: Box | None
    targets: tuple[Pointed, ...]


def places_of(first: Heard, seconds: Sequence[Heard] | None) -> list[Place]:
    """Those places of a first answer at which the second found something; without seconds, each its own target."""
    if first.status != "boxes":
        return []
    if seconds is None:
        return [Place(one.label, None, (one,)) for one in first.boxes]
    pairs = zip(first.boxes, seconds, strict=True)
    return [Place(one.label, one.box, later.boxes) for one, later in pairs if later.status == "boxes"]


def group(places: Sequence[Place]) -> list[list[Place]]:
    """Places of one name in the answer are one target, as all of a class are; in the answer's order."""
    found: dict[str, list[Place]] = {}
    for place in places:
        found.setdefault((place.label or "").casefold(), []).append(place)
    return list(found.values())


def phrases_of(targets: Sequence[Sequence[Place]]) -> list[str | None]:
    """What an answer calls its targets: several by the names that told them apart, one by its own boxes' if they have
    one name, else by its place's."""
    if len(targets) == 1:
        own = {target.label for place in targets[0] for target in place.targets}
        if len(own) == 1 and None not in own:
            return [own.pop()]
    return [places[0].label for places in targets]


def status_of(heard: Sequence[Heard], places: Sequence[Place]) -> Status:
    """What all answers to a query come to."""
    if places:
        return "segmented"
    return "text" if any(one.status == "unclear" for one in heard) else "absent"
