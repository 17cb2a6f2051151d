"""The training mixture: which image comes next and what is asked about it (reference: the published recipe's draws).

Draw i of epoch e is a function of (seed, e, i) and of the sources alone: the same on any number of workers and ranks,
and a resumed run goes on with the next one and replays none.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from cores.data.bad import BadItems, OnBad
from cores.data.sample import Raster, Sample
from cores.data.sources.base import FileSource, Source
from cores.errors import DataError

STREAM = 1  # keeps these draws apart from the prompts', which are seeded with (seed, epoch, index) too
REDRAWS = 100  # images with nothing to ask that are passed over before a source is called empty

OpenPicture = Callable[[Path | Image.Image], Image.Image | Raster]


class Mixture:
    """Samples by (epoch, index): a family by its rate, one of its sources, one of its images, up to n questions.

    Sources of a family, images of a source and questions of an image have equal chances; an image with nothing to ask
    is drawn again.

    Args:
        families: sources by family. `rates`: of each family, 1 where not said.
        questions: most conversations about one image, drawn without replacement.
        explain: chance that an image with an explanation is asked for it alone, -1 for never (see `Record.draw`).
        rename: parts are also called "the part of the obj".
        on_bad: what is done about images that cannot be used.
        open_picture: decodes the picture of every sample, so that one that cannot be decoded is a bad item here and
            not a crash later; the sample then carries what it gives. None: samples name their files.

    Raises DataError for a source without images and a rate that is no positive number.
    """

    def __init__(
        self,
        families: Mapping[str, Sequence[Source]],
        rates: Mapping[str, float] | None = None,
        *,
        questions: int = 3,
        seed: int = 0,
        explain: float = 0.1,
        rename: bool = True,
        on_bad: OnBad = "error",
        open_picture: OpenPicture | None = None,
    ) -> None:
        rates = rates or {}
        problems = [
            f"{source.name}: has no images" for sources in families.values() for source in sources if not len(source)
        ]
        problems += [f"the family {name} has no sources" for name, sources in families.items() if not sources]
        problems += [f"the rate of {name} is {rate}" for name, rate in rates.items() if not 0 < rate < float("inf")]
        problems += [f"there is a rate for {name}, which is no family" for name in rates if name not in families]
        if problems or not families:
            raise DataError(f"nothing can be drawn: {'; '.join(problems) or 'there are no sources'}")
        self.names = list(families)
        self.sources = [list(sources) for sources in families.values()]
        weights = np.array([rates.get(name, 1.0) for name in families])
        self.limits = np.cumsum(weights / weights.sum())
        self.questions, self.seed, self.explain, self.rename = questions, seed, explain, rename
        self.open_picture, self.bad = open_picture, BadItems(on_bad)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """The sample of draw (epoch, index). Raises DataError by the policy `on_bad`, and for an empty source."""
        rng, family, source = self._choose(*key)
        for _ in range(REDRAWS):
            number = int(rng.integers(len(source)))
            # what an image draws from a generator of its own cannot change what is drawn after it
            inner = np.random.default_rng(rng.integers(1 << 62))
            try:
                sample = self._draw(source, number, inner)
            except DataError as error:
                self.bad.skip(error)
                continue
            if sample.conversations:
                self.bad.use()
                origin = {"source": source.name, "name": f"picture {number}"}
                return replace(sample, meta=origin | sample.meta | {"family": self.names[family]})
        raise DataError(f"{source.name}: {REDRAWS} images drawn, none with a question to ask")

    def _choose(self, epoch: int, index: int) -> tuple[np.random.Generator, int, Source]:
        rng = np.random.default_rng([self.seed, epoch, index, STREAM])
        family = min(int(np.searchsorted(self.limits, rng.random(), side="right")), len(self.names) - 1)
        sources = self.sources[family]
        return rng, family, sources[int(rng.integers(len(sources)))]

    def _draw(self, source: Source, number: int, rng: np.random.Generator) -> Sample:
        sample = draw_questions(source, number, self.questions, rng, self.explain, self.rename)
        if self.open_picture is None or not sample.conversations:
            return sample
        picture = self.open_picture(sample.image)
        size = picture.size if isinstance(picture, Raster) else (picture.height, picture.width)
        if size != sample.size:
            raise DataError(f"{sample.image}: is {size[0]} x {size[1]}, its header said {sample.size}")
        return replace(sample, raster=picture) if isinstance(picture, Raster) else replace(sample, image=picture)

    def statistics(self, epoch: int, indices: Iterable[int]) -> dict[str, int]:
        """How often each source is drawn in these draws of an epoch, as "family: source". Reads no files."""
        chosen = (self._choose(epoch, index)[1:] for index in indices)
        counts = Counter(f"{self.names[family]}: {source.name}" for family, source in chosen)
        return dict(sorted(counts.items()))


def draw_questions(
    source: Source, number: int, count: int, rng: np.random.Generator, explain: float = 0.1, rename: bool = True
) -> Sample:
    """Image `number` of a source with up to `count` of its questions. Raises DataError when its files cannot be used.

    Of a source that is no file's, conversations are drawn as they are: `explain` and `rename` say nothing then.
    """
    if isinstance(source, FileSource):
        return source.record(number).draw(count, rng, explain, rename)
    sample = source[number]
    chosen = rng.permutation(len(sample.conversations))[:count]
    meta = dict(sample.meta)
    if "kinds" in meta:
        meta["kinds"] = [meta["kinds"][i] for i in chosen]
    return replace(sample, conversations=tuple(sample.conversations[i] for i in chosen), meta=meta)
