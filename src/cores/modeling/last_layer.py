"""The language model's last layer in training, where the states of answers alone are read.

Every token is looked at, so keys and values are made of all of them. What else the layer does, it does with each token
by itself (its query, what attention found put out, the MLP): here with those that are read. The others leave it
unfinished, and nothing may read them. No loss and no gradient changes, since none comes back from there.

Legend: rows, tokens = as in `packing`; read = tokens whose states are read; width = of a state.
"""

import math
from typing import Any

from torch import Tensor, nn

from cores.modeling.packed_attention import PackedMask

ALONE = ("self_attn.q_proj", "self_attn.o_proj", "mlp")  # what works on each token by itself, if the layer has it


class LastLayer:
    """Hooks by which a decoder layer does what a `PackedMask` says.

    All of them are inside the layer, of which attention comes first: so they are there when it is run again for its
    gradients, and what a mask says holds until attention is given the next.
    """

    def __init__(self, layer: nn.Module) -> None:
        self.reads: Tensor | None = None  # places of the tokens that are read, of the call that runs; None: of all
        self.shape = (0, 0)  # rows, tokens
        parts = dict(layer.named_modules())
        parts["self_attn"].register_forward_pre_hook(self._begin, with_kwargs=True)
        for part in (parts[name] for name in ALONE if name in parts):
            part.register_forward_pre_hook(self._take)
            part.register_forward_hook(self._put)

    def _begin(self, _: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        mask = kwargs.get("attention_mask")
        last = mask.last if isinstance(mask, PackedMask) else None
        self.reads = None if last is None else last.reads
        if last is None:
            return None
        self.shape = (last.shape[0], last.shape[-1])
        return args, {**kwargs, "attention_mask": last}

    def _take(self, _: nn.Module, args: Any) -> Any:
        """Of the states (rows, tokens, width) those that are read: (1, read, width)."""
        if self.reads is None:
            return None
        states, *others = args
        return states.flatten(0, 1).index_select(0, self.reads)[None], *others

    def _put(self, _: nn.Module, __: Any, found: Tensor) -> Tensor | None:
        """Back where they were, and 0 elsewhere."""
        if self.reads is None:
            return None
        whole = found.new_zeros((math.prod(self.shape), found.shape[-1])).index_copy(0, self.reads, found[0])
        return whole.view(*self.shape, -1)
