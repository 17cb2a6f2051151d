"""Questions that are put into words in several ways, though each picture is looked at once."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cores.asking.answers import passes
from cores.data.sample import Form
from cores.inference.options import Options
from cores.inference.picturelike import Picturelike
from cores.inference.segmentation import Segmentation
from cores.inference.segmenting import PICTURES_AT_ONCE

if TYPE_CHECKING:
    from cores.inference.facade import Cores, CoresInWords

Said = tuple[str, Form | None]  # a query and its form; None: told by its words


def segment_mixed(
    cores: "Cores | CoresInWords",
    images: Sequence[Picturelike],
    asked: Sequence[Sequence[Said]],
    max_new_tokens: int | None = None,
) -> list[list[Segmentation]]:
    """`segment_batch` where each query has a form of its own: answers in the same lists.

    Queries of one form are asked together. Raises as `segment_batch` does.
    """
    found: list[list[Segmentation]] = []
    for some in passes(len(images), PICTURES_AT_ONCE):
        seen = cores.encode_batch(images[some])
        answers: dict[tuple[int, int], Segmentation] = {}
        for form in dict.fromkeys(form for own in asked[some] for _, form in own):
            places = [
                [(image, query) for query, said in enumerate(own) if said[1] == form]
                for image, own in enumerate(asked[some])
            ]
            queries = [[asked[some][image][query][0] for image, query in own] for own in places]
            options = Options(form=form, max_new_tokens=max_new_tokens)
            together = cores.ask_batch(seen, queries, options)  # type: ignore[arg-type]
            for keys, told in zip(places, together, strict=True):
                answers.update(zip(keys, told, strict=True))
        for number, (image, own) in enumerate(zip(images[some], asked[some], strict=True)):
            found.append([answers[number, query].about(image) for query in range(len(own))])
    return found
