"""What a source asks and answers, as plain texts, without decoding a mask."""

from collections.abc import Iterator

from cores.data.record import Record
from cores.data.sources.base import FileSource
from cores.errors import DataError

MOST = 500  # images of a source that are read: enough for every word of a small one, seconds for a large one


def texts_of(source: FileSource, most: int = MOST) -> Iterator[str]:
    """Questions and answers of at most `most` images, evenly spread; images that cannot be read are passed over."""
    count = min(len(source), most)
    for number in range(count):
        try:
            record = source.record(number * len(source) // count)
        except DataError:
            continue  # said by `cores data check`, and by training when it meets them
        yield from _said(record)


def _said(record: Record) -> Iterator[str]:
    for question in record.questions:
        yield from (question.text, *question.others, question.answer or "")
    for talk in record.talks:
        for turn in talk.turns:
            yield from (turn.query, turn.answer or "")
    yield from record.explanations
