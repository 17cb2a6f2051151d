"""Boxes out of an answer in words, whatever is around them.

Models wrap boxes in JSON, with or without a fence, in tags, in prose; they cut it off, swap corners, and refuse in
many ways. Four numbers in brackets are a box wherever they stand; what names it is looked for beside it.
"""

import re
from dataclasses import dataclass
from typing import Literal

from cores.words.boxes import Box

NUMBER = r"([-+]?\d+(?:\.\d*)?|[-+]?\.\d+)"
# [x1, y1, x2, y2], [[x1, y1], [x2, y2]] and (x1, y1), (x2, y2)
BOX = re.compile(rf"[\[(]\s*{NUMBER}\s*,\s*{NUMBER}\s*(?:,|[\])]\s*,\s*[\[(])\s*{NUMBER}\s*,\s*{NUMBER}\s*,?\s*[\])]")
THINKING = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
FENCE = re.compile(r"```[a-zA-Z]*\s*(.*?)(?:```|\Z)", re.DOTALL)
LABEL = re.compile(r"""["'](?:label|name|object|phrase)["']\s*:\s*(?:"((?:\\.|[^"\\])*)"|'((?:\\.|[^'\\])*)')""")
TAGGED = re.compile(r"(?:<ref>|<\|object_ref_start\|>)\s*(.*?)\s*(?:</ref>|<\|object_ref_end\|>)", re.DOTALL)
SPOKEN = re.compile(r"([^\n.;:\[\](){}<>\"'`]{1,80}):[\w ]{0,40}(?:[\[(]\s*)*\Z")
BETWEEN = re.compile(r"[\s,\[\]()]*")  # what stands between two boxes of one name
EMPTY = re.compile(r"\[\s*(?:\[\s*\])?\s*\]|\{\s*\}")
NOTHING = re.compile(r"\W*(?:none|null|nothing|no|n/a|not found|not (?:visible|present))\W*", re.IGNORECASE)
REFUSAL = re.compile(
    r"\bthere(?:'s| is| are| does| seems to be| appears to be) (?:no|not|nothing|none)\b"
    r"|\bthere (?:isn't|aren't|doesn't)\b"
    r"|\bno such\b"
    r"|\bno (?:\w+ ){0,4}(?:is|are|was|were|can be|could be) (?:\w+ )?(?:visible|present|seen|found|shown|detected)\b"
    r"|\b(?:cannot|can't|can not|could not|couldn't|unable to|do not|don't|did not|didn't) (?:\w+ )?"
    r"(?:find|see|locate|identify|detect|spot)\b"
    r"|\b(?:is|are)(?: not|n't) (?:\w+ )?(?:present|visible|shown|there|here|in (?:this|the)|depicted|found|any)\b"
    r"|\b(?:does not|doesn't|do not|don't) (?:\w+ )?(?:appear|exist|contain|show|include|have|feature)\b"
    r"|\bnothing (?:like|in|of|here|matches|fits|that)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Named:
    """One box as it was said: numbers of whatever the family counts, corners in order; `label` None for no name."""

    numbers: Box
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Parsed:
    """An answer. `status`: `boxes`, at least one; `absent`, it says that there is none; `unclear`, neither."""

    status: Literal["boxes", "absent", "unclear"]
    boxes: tuple[Named, ...] = ()


def parse_boxes(text: str) -> Parsed:
    """Read an answer. Boxes without width or height are left out; a refusal before the first box counts as one."""
    text = THINKING.sub(" ", text)
    fenced = "\n".join(part for part in FENCE.findall(text) if BOX.search(part))
    body = fenced or text
    first = BOX.search(body)
    if first is None:
        absent = NOTHING.fullmatch(text) or REFUSAL.search(text) or EMPTY.search(text)
        return Parsed("absent" if absent else "unclear")
    if not fenced and REFUSAL.search(body, 0, first.start()):
        return Parsed("absent")
    found: list[Named] = []
    before, label = 0, None
    for match in BOX.finditer(body):
        x1, y1, x2, y2 = (float(number) for number in match.groups())
        if not before or not BETWEEN.fullmatch(body, before, match.start()):  # else it shares the name before it
            label = _label(body, before, match)
        if x1 != x2 and y1 != y2:
            found.append(Named((min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)), label))
        before = match.end()
    return Parsed("boxes", tuple(found)) if found else Parsed("unclear")


def _label(text: str, before: int, match: re.Match[str]) -> str | None:
    """The name of a box: in its JSON object, in the tag before it, or in the words and colon before it."""
    opening = text.rfind("{", before, match.start())
    if opening >= 0:
        later = BOX.search(text, match.end())
        ends = (text.find("}", match.end()), later.start() if later else -1, len(text))
        label = LABEL.search(text, opening, min(end for end in ends if end >= 0))
        return _clean(label[1] if label[1] is not None else label[2]) if label else None
    tags = TAGGED.findall(text, before, match.start())
    if tags:
        return _clean(tags[-1])
    spoken = SPOKEN.search(text, before, match.start())
    return _clean(spoken[1]) if spoken else None


def _clean(label: str) -> str | None:
    return " ".join(label.replace("\\", "").split()) or None
