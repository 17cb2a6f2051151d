"""Everything that a source can ask, as JSON lines that others can check; fields and order are in docs/data.md.

Nothing is drawn at random; every mask is decoded at full size.
"""

import json
from typing import Any

from cores.data.record import Question, Record
from cores.data.sample import Conversation
from cores.data.sources.base import FileSource


def dump_order(source: FileSource) -> list[list[int]]:
    """The numbers of the items that share an image and split, sorted by the image's name as bytes, then by split."""
    groups: dict[tuple[bytes, str], list[int]] = {}
    for i in range(len(source)):
        name, split = source.place(i)
        groups.setdefault((name.encode("utf-8", "surrogateescape"), split), []).append(i)
    return [groups[key] for key in sorted(groups)]


def dump_line(source: FileSource, numbers: list[int]) -> str:
    """The line of one image and split, without its end. Raises DataError when its files cannot be used."""
    records = [source.record(i) for i in numbers]
    return json.dumps(line_of(records, source.place(numbers[0])[0]))  # ASCII: some take U+2028 for a line's end


def line_of(records: list[Record], name: str) -> dict[str, Any]:
    """The line of one image, which may have several records: conversations about it, one behind the other.

    Masks are decoded. Raises DataError when one cannot be used.
    """
    first = records[0]
    return {
        "image": name,
        "size": list(first.size),
        "split": first.split,
        "queries": [_query(question) for record in records for question in record.questions],
        "conversations": [_talk(talk) for record in records for talk in record.talks],
        "ignore": first.ignore,
        "answers": [text for record in records for text in record.explanations],
    }


def _query(question: Question) -> dict[str, Any]:
    return {
        "text": question.text,
        "is_sentence": question.is_sentence,
        "category": question.category,
        "targets": [target.mask for target in question.find()],
    }


def _talk(talk: Conversation) -> list[dict[str, str]]:
    said = []
    for turn in talk.turns:
        said.append({"role": "user", "text": turn.query})
        if turn.answer is not None:
            said.append({"role": "assistant", "text": turn.answer})
    return said
