"""What one evaluation asks of a source: its first pictures, in batches that do not depend on who asks them."""

from collections.abc import Collection, Iterator, Sequence

from PIL import Image

from cores.data.sample import Sample
from cores.data.sources import Source
from cores.errors import DataError
from cores.evaluation.journal import Place, digest
from cores.processing.pixels import open_picture


class Part:
    """The first `count` samples of a source (None: all), and the picture of each."""

    def __init__(self, source: Source, count: int | None = None) -> None:
        self.source = source
        self.count = len(source) if count is None else min(count, len(source))

    def __len__(self) -> int:
        return self.count

    def picture(self, i: int) -> Image.Image:
        """The picture of sample i, after EXIF rotation. Raises DataError when it cannot be read."""
        return open_picture(self.source[i].image)

    def share(self, done: Collection[int], pictures: int, rank: int = 0, world: int = 1) -> list[int]:
        """The numbers of the samples that a process asks: whole batches of `pictures`, those done left out.

        A batch holds the same samples for any number of processes, and its answers are the same bits then.
        """
        batches = [range(first, min(first + pictures, self.count)) for first in range(0, self.count, pictures)]
        known = frozenset(done)
        left = [batch for batch in batches if not known.issuperset(batch)]
        return [number for batch in left[rank::world] for number in batch]

    def check_same(self, places: dict[int, Place]) -> None:
        """Raises DataError when samples that were asked before are others now. Looks at the first, middle and last."""
        numbers = sorted(places)
        for number in dict.fromkeys(numbers[i] for i in (0, len(numbers) // 2, -1) if numbers):
            if digest(self.source[number]) != places[number].digest:
                raise DataError(
                    f"{self.source.name}: picture {number} or its questions changed since the unfinished evaluation: "
                    f"take another folder, or --overwrite to begin anew"
                )


class Numbered(Sequence[Sample]):
    """The samples of a part with these numbers, read when asked for."""

    def __init__(self, part: Part, numbers: Sequence[int]) -> None:
        self.part, self.numbers = part, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, i: int) -> Sample:  # type: ignore[override]  # no slices
        return self.part.source[self.numbers[i]]

    def __iter__(self) -> Iterator[Sample]:
        return (self.part.source[number] for number in self.numbers)
