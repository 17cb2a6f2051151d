"""The ids of all answers that a checkpoint's prompt teaches."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from cores.processing.processor import CoresProcessor

CHAINS = 3  # most targets that a template is written for: from then on, it repeats itself


@dataclass(frozen=True, slots=True)
class AnswerTemplates:
    """Ids of answers, closed: `single` with one chain, `several` with one and more, `refusals`."""

    single: list[list[int]]
    several: list[list[int]]
    refusals: list[list[int]]

    @classmethod
    def of(cls, processor: "CoresProcessor") -> Self:
        """Those of a processor's prompt. It keeps them itself: `CoresProcessor.answer_templates`."""
        writer = processor.writer
        several = [writer.answer([None] * count) for count in range(1, CHAINS + 1)]
        kinds = ([writer.fill(answer) for answer in writer.words.answers], several, writer.words.refusals)
        return cls(*([processor.answer_ids(text).tolist() for text in kind] for kind in kinds))
