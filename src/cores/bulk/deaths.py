"""Pictures over which a worker's process died, such as one that takes all memory or that crashes a decoder.

Before pictures are opened and asked, they are noted on disk. A worker that finds such a note of a dead one knows what
that was at: it asks the same again, since most deaths are nobody's fault (a machine goes, somebody kills it); after a
second death each picture alone; a picture that has died three times is given up. Notes of an earlier run do not count:
its workers died with it.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cores.whole import whole_file

ALONE, GIVEN_UP = 2, 3  # deaths


class Batch(NamedTuple):
    """Pictures that are asked together, by their places in the part. `suspected`: a worker died over it twice."""

    places: list[int]
    suspected: bool


class Deaths:
    """How often a worker died over each picture of a part, by the picture's place in it.

    Args: `note`: where it is kept until the part is done; `run`: says which run this is.
    """

    def __init__(self, note: Path, run: str) -> None:
        self.note, self.run = note, run
        self.counts: dict[int, int] = {}
        try:
            before = json.loads(note.read_bytes())
        except (OSError, ValueError):
            return
        if before["run"] == run:
            self.counts = {int(place): count for place, count in before["deaths"].items()}
            for place in before["asking"]:
                self.counts[place] = self.counts.get(place, 0) + 1

    def batches(self, pictures: int, size: int) -> list[Batch]:
        """All places that are not given up, `size` together; those of a suspected batch each alone.

        What is asked together does not depend on deaths otherwise, so that the same masks are found to the last pixel.
        """
        found = []
        for first in range(0, pictures, size):
            places = list(range(first, min(first + size, pictures)))
            if any(self.counts.get(place, 0) >= ALONE for place in places):
                found += [Batch([place], True) for place in places if not self.given_up(place)]
            else:
                found.append(Batch(places, False))
        return found

    def given_up(self, place: int) -> bool:
        """Has a worker died over it too often?"""
        return self.counts.get(place, 0) >= GIVEN_UP

    def asking(self, places: Sequence[int]) -> None:
        """Note what is opened and asked from here on."""
        with whole_file(self.note) as part:
            part.write_text(json.dumps({"run": self.run, "deaths": self.counts, "asking": list(places)}))

    def done(self) -> None:
        """Forget them: the part is done."""
        self.note.unlink(missing_ok=True)
