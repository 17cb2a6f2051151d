"""How each family of models says where things are: a table of what it is asked and what its numbers mean.

Only families that were trained to say boxes in text are in it. To add one: a row here, and its answers in the table of
`tests/test_words_parsing.py`.
"""

from dataclasses import dataclass, replace
from typing import Literal

from cores.errors import CheckpointError
from cores.geometry import Size
from cores.words.boxes import Box

# What the numbers of a box count: pixels of the picture as the model saw it, after its own resizing; shares of the
# picture; shares of the square that the picture was padded to, in its middle.
Frame = Literal["resized", "picture", "square"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grounding:
    """One family's own way.

    `locate`: asks where to look, of a {query}; `find`: for the thing itself; `inside`: for the thing in a {box} that
    the first answer gave. `again`: said behind a question whose answer could not be read. `frame` and `scale`: what
    the numbers count, and what stands for the whole side (1 for pixels). `box`: how a box of x1 y1 x2 y2 is written.
    """

    locate: str
    find: str
    inside: str
    again: str
    frame: Frame
    scale: float = 1.0
    box: str = "[{0:.0f}, {1:.0f}, {2:.0f}, {3:.0f}]"

    def pixels(self, numbers: Box, size: Size, resized: Size) -> Box:
        """What an answer's numbers mean, in pixels of the picture (h, w) that was `resized` for the model."""
        if self.scale > 1 and max(map(abs, numbers)) <= 1:  # shares, from a model that was taught larger numbers
            numbers = _each(numbers, self.scale, self.scale)
        h, w = size
        if self.frame == "resized":
            return _each(numbers, w / resized[1], h / resized[0])
        if self.frame == "picture":
            return _each(numbers, w / self.scale, h / self.scale)
        side = max(size)
        x1, y1, x2, y2 = _each(numbers, side / self.scale, side / self.scale)
        left, top = (side - w) // 2, (side - h) // 2
        return x1 - left, y1 - top, x2 - left, y2 - top

    def say(self, box: Box, size: Size, resized: Size) -> str:
        """A box of the picture (h, w) in the family's words: the other way round."""
        h, w = size
        if self.frame == "resized":
            numbers = _each(box, resized[1] / w, resized[0] / h)
        elif self.frame == "picture":
            numbers = _each(box, self.scale / w, self.scale / h)
        else:
            side = max(size)
            left, top = (side - w) // 2, (side - h) // 2
            moved = (box[0] + left, box[1] + top, box[2] + left, box[3] + top)
            numbers = _each(moved, self.scale / side, self.scale / side)
        return self.box.format(*numbers)


def _each(box: Box, across: float, down: float) -> Box:
    return box[0] * across, box[1] * down, box[2] * across, box[3] * down


_LOCATE = (
    'Somebody asks for this in the picture: "{query}". Where has one to look for it? Take the whole object that it '
    "is, or that it is a part of. If several things are asked for, take the object of each. "
)
_FIND = 'Find exactly what is asked for and nothing around it: "{query}". '
_INSIDE = 'Look inside the box {box}. Find exactly what is asked for and nothing around it: "{query}". '
_JSON = (
    "Report bounding boxes in JSON, one entry for each: "
    '[{{"bbox_2d": [x1, y1, x2, y2], "label": "name"}}]. If it is not there, answer [].'
)
_LIST = "Give the bounding boxes as [[x1, y1, x2, y2]] with numbers from 0 to 1000. If it is not there, answer [[]]."
_REF = "Please provide the bounding box coordinate of the region this sentence describes: "

_QWEN = Grounding(
    locate=_LOCATE + _JSON,
    find=_FIND + _JSON,
    inside=_INSIDE + _JSON,
    again="Answer with the JSON list alone.",
    frame="picture",
    scale=1000,
)
_GLM = replace(
    _QWEN,
    locate=_LOCATE + _LIST,
    find=_FIND + _LIST,
    inside=_INSIDE + _LIST,
    again="Answer with the boxes alone.",
)
_INTERNVL = replace(
    _QWEN,
    locate=_REF + "<ref>the whole object that is, or holds, what is asked for by: {query}</ref>",
    find=_REF + "<ref>{query}</ref>",
    inside=_REF + "<ref>{query}, inside the box {box}</ref>",
    again="Answer with <box>[[x1, y1, x2, y2]]</box>.",
    box="[[{0:.0f}, {1:.0f}, {2:.0f}, {3:.0f}]]",
)
_LLAVA = replace(
    _QWEN,
    locate=_REF + "the whole object that is, or holds, what is asked for by: {query}",
    find=_REF + "{query}",
    inside=_REF + "{query}, inside {box}",
    again="Answer with [x1, y1, x2, y2].",
    frame="square",
    scale=1.0,
    box="[{0:.2f}, {1:.2f}, {2:.2f}, {3:.2f}]",
)
# The tiny model of `cores scenes words`: two digits a number, in words that its tokenizer knows.
CORES = Grounding(
    locate="{query} Please output the box it appears on.",
    find="{query} Please output the box.",
    inside="{query} Please output the box in {box}.",
    again="Please output the box.",
    frame="square",
    scale=99,
    box="[{0:02.0f}, {1:02.0f}, {2:02.0f}, {3:02.0f}]",
)

GROUNDING: dict[str, Grounding] = {  # by the config's model_type
    "cores": CORES,
    "qwen2_vl": _QWEN,
    "qwen2_5_vl": replace(_QWEN, frame="resized", scale=1.0),
    "qwen3_vl": _QWEN,
    "qwen3_5": _QWEN,
    "internvl": _INTERNVL,
    "glm4v": _GLM,
    "llava": _LLAVA,
}
REFUSED = {  # what is known to lead nowhere, and why
    "paligemma": "it answers in location tokens of its own, not in text",
    "florence2": "it answers in location tokens of its own, not in text",
    "kosmos-2": "it answers in location tokens of its own, not in text",
    "molmo2": "it points and says no boxes",
    **dict.fromkeys(
        ("gemma3", "gemma3n", "smolvlm", "idefics2", "idefics3", "mistral3"), "it was not taught to say boxes"
    ),
}


def grounding_of(model_type: str, name: str = "the model") -> Grounding:
    """A family's row. Raises CheckpointError, which says why, for a family that says no boxes in text."""
    if model_type in GROUNDING:
        return GROUNDING[model_type]
    why = REFUSED.get(model_type, "nobody has said yet how it writes boxes")
    raise CheckpointError(
        f"{name}: a {model_type!s:.80} cannot be asked for boxes in words: {why}; take one of {', '.join(GROUNDING)}"
    )
