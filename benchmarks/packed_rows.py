"""Attention of one layer over a packed row: through a mask of tokens x tokens, and by conversations; CPU seconds.

    python benchmarks/packed_rows.py

8 heads of 64, fp32, one thread: a prefix of 291 tokens and so many conversations of 96. `mask` and `found`: making the
mask, and finding the conversations; the rest is the best of three, without gradients and with them.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from cores.modeling import packed_attention
from cores.modeling.packed_attention import PackedMask, find_conversations
from cores.modeling.packing import additive, pack

PREFIX, OWN, HEADS, WIDTH = 291, 96, 8, 64
QUESTIONS = (1, 4, 16, 48)


def seconds(function: Callable[[], Any], times: int = 3) -> float:
    """Of the best of so many calls."""
    found = []
    for _ in range(times):
        began = time.process_time()
        function()
        found.append(time.process_time() - began)
    return min(found)


def row(questions: int) -> dict[str, float]:
    numbers = torch.arange(1, questions + 1).repeat_interleave(OWN)
    segments = torch.cat([torch.zeros(PREFIX, dtype=torch.long), numbers])[None]
    found = {"mask": seconds(lambda: additive(pack(segments).seen, torch.float32), 1)}
    found["found"] = seconds(lambda: find_conversations(segments), 1)
    conversations = find_conversations(segments)
    assert conversations is not None
    masks = {
        "dense": additive(pack(segments).seen, torch.float32),
        "by conversations": PackedMask.of(conversations, segments),
    }
    for learns in (False, True):
        inputs = [torch.randn(1, segments.shape[1], HEADS, WIDTH).transpose(1, 2) for _ in range(3)]
        for one in inputs:
            one.requires_grad_(learns)
        for name, mask in masks.items():

            def attend(inputs: list[torch.Tensor] = inputs, mask: torch.Tensor = mask, learns: bool = learns) -> None:
                output = F.scaled_dot_product_attention(*inputs, attn_mask=mask, is_causal=False)
                if learns:
                    output.sum().backward()

            found[name + (", learns" if learns else "")] = seconds(attend)
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    packed_attention.SAVES = 0  # whatever it saves
    for number in QUESTIONS:
        figures = "  ".join(f"{name} {value:.4f}" for name, value in row(number).items())
        sys.stdout.write(f"{number} questions, {PREFIX + number * OWN} tokens: {figures}\n")
