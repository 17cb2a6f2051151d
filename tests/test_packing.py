"""Packed = separate: three conversations of different lengths on each of two images, eager and sdpa attention."""

import pytest
import torch
from transformers import LlamaConfig, LlamaModel

from cores.modeling.packing import additive, pack

PREFIXES = (5, 9)
LENGTHS = ((4, 7, 3), (2, 6, 5))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_packed_equals_separate(attention):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
        attn_implementation=attention,
    )  # fmt: skip
    model = LlamaModel(config).eval()
    prefixes = [torch.randint(0, 50, (n,)) for n in PREFIXES]
    questions = [[torch.randint(0, 50, (n,)) for n in row] for row in LENGTHS]

    tokens = max(p + sum(row) for p, row in zip(PREFIXES, LENGTHS, strict=True))
    ids = torch.zeros(2, tokens, dtype=torch.long)
    segments = torch.full((2, tokens), -1)
    for i, (prefix, row) in enumerate(zip(prefixes, questions, strict=True)):
        packed = torch.cat([prefix, *row])
        ids[i, : len(packed)] = packed
        named = [torch.full((len(part),), k) for k, part in enumerate([prefix, *row])]
        segments[i, : len(packed)] = torch.cat(named)
    sight = pack(segments)
    with torch.no_grad():
        hidden = model(
            ids, attention_mask=additive(sight.seen, torch.float32), position_ids=sight.queries
        ).last_hidden_state
    assert hidden.isfinite().all()

    for i, (prefix, row) in enumerate(zip(prefixes, questions, strict=True)):
        for k, question in enumerate(row, start=1):
            with torch.no_grad():
                alone = model(torch.cat([prefix, question])[None]).last_hidden_state[0, len(prefix) :]
            torch.testing.assert_close(hidden[i][segments[i] == k], alone, atol=1e-5, rtol=1e-5)


def test_rows_in_another_order_are_refused():
    with pytest.raises(ValueError, match="rise along a row"):
        pack(torch.tensor([[0, 2, 1]]))
    with pytest.raises(ValueError, match="rise along a row"):
        pack(torch.tensor([[0, -1, 1]]))
