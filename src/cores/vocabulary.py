"""The vocabulary of the chain: its levels, their tokens, the marks of a picture, and the numbers that mean nothing.

Two programs that differ in one of these cannot read each other's batches or checkpoints, so each stands here once.
"""

from typing import Literal

LevelName = Literal["location", "part", "target"]

# A chain of this many levels, coarse to fine: 1 is LISA, 2 are CoReS, 3 the paper's ablation.
LEVEL_NAMES: dict[int, tuple[LevelName, ...]] = {
    1: ("target",),
    2: ("location", "target"),
    3: ("location", "part", "target"),
}
# How a chain's masks go together. chain: each guides the next. The other two are rows of the paper's ablation. apart:
# all tokens are said, and the last one's mask is made by itself. twice: one token is said, its mask is made twice, and
# the first one guides the second.
SEGMENTING = ("chain", "apart", "twice")
TOKENS: dict[LevelName, str] = {"location": "[LOC]", "part": "[PART]", "target": "[SEG]"}
PUBLISHED_LOCATION = "[SEG_SEMA]"  # the published programs' word for [LOC]
PUBLISHED_TOKENS: dict[LevelName, str] = {**TOKENS, "location": PUBLISHED_LOCATION}
PLACEHOLDERS: dict[LevelName, str] = {"location": "{loc}", "part": "{part}", "target": "{seg}"}  # in templates

IMAGE, IM_START, IM_END = "<image>", "<im_start>", "<im_end>"

IMAGE_PLACE = -200  # stands for the picture in the ids of a prompt, as in the published programs
UNSUPERVISED = -100  # the label of a token that is not learned: torch's cross-entropy leaves it out
PREFIX, PADDING = 0, -1  # segments of a packed row: before all conversations (1, 2, ...), and what fills it up
