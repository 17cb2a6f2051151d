"""What the engine asks of a model: pictures looked at together, questions about them answered together."""

from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image

from cores.data.sample import Form
from cores.inference.facade import Cores, CoresInWords
from cores.inference.segmentation import Segmentation
from cores.inference.segmenting import result_of, worded

Hear = Callable[[str], bool]  # takes the text that an answer has so far; False: nobody wants the rest


def look(cores: Cores | CoresInWords, pictures: Sequence[Image.Image]) -> list[Any]:
    """What the model sees of some pictures, ready to be asked about."""
    return list(cores._asker().encode_images(pictures))


def answer(
    cores: Cores | CoresInWords,
    encoded: Sequence[Any],
    queries: Sequence[Sequence[tuple[str, Form | None]]],
    max_new_tokens: int | None,
) -> list[list[Segmentation]]:
    """Answers to all queries, each with its form, about pictures that were looked at."""
    asker: Any = cores._asker(max_new_tokens)
    asked = [[worded([query], form)[0] for query, form in own] for own in queries]
    told = asker.generate_batch(encoded, asked)
    return [
        [result_of(asker, image, query, one) for (query, _), one in zip(own, answers, strict=True)]
        for image, own, answers in zip(encoded, queries, told, strict=True)
    ]
