"""Whether what was asked for is not there, by how likely a model is to begin its answer with a refusal."""

from collections.abc import Sequence

import torch

from cores.modeling.generation import Said
from cores.modeling.model import CoresModel
from cores.processing.processor import CoresProcessor


class FirstWords:
    """The first ids of a checkpoint's refusals that begin no other answer, and those that begin both."""

    def __init__(self, processor: CoresProcessor) -> None:
        known = processor.answer_templates
        refusals, others = ({ids[0] for ids in kind} for kind in (known.refusals, known.single))
        self.refusing, self.both = sorted(refusals - others), sorted(refusals & others)

    @torch.no_grad()
    def absent(self, model: CoresModel, said: Sequence[Said]) -> list[float]:
        """Of each answer, 0 to 1: the share that the refusals' first tokens have of the probability of its first one,
        tokens that begin a refusal and an answer alike left out; 0 where nothing was said, or all begin both."""
        found = [0.0] * len(said)
        begun = [number for number, one in enumerate(said) if len(one.states)]
        if not self.refusing or not begun:
            return found
        logits = model.mllm.logits(torch.stack([said[number].states[0] for number in begun]))
        chances = logits.float().softmax(-1)
        refusing, both = (chances[:, ids].sum(-1) for ids in (self.refusing, self.both))
        shares = (refusing / (1 - both).clamp(min=1e-6)).clamp(max=1).tolist()
        for number, share in zip(begun, shares, strict=True):
            found[number] = share
        return found
