"""Packed = separate, by every attention: conversations of different lengths behind prefixes of different lengths."""

from collections.abc import Sequence

import pytest
import torch
from tiny import tiny_config, tiny_model
from transformers import LlamaConfig, LlamaModel

from cores.modeling import packed_attention
from cores.modeling.packed_attention import PackedMask, block_mask, find_conversations
from cores.modeling.packing import Sight, additive, pack

PREFIXES = (5, 9)
LENGTHS = ((4, 7, 3), (2, 6, 5))


def segments_of(prefixes: Sequence[int], lengths: Sequence[Sequence[int]]) -> torch.Tensor:
    rows = [
        torch.cat([torch.full((n,), number) for number, n in enumerate((prefix, *own))])
        for prefix, own in zip(prefixes, lengths, strict=True)
    ]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)


def llama(attention: str = "sdpa", heads: int = 4) -> LlamaModel:
    """`heads`: of keys; there are 4 of queries."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=heads, attn_implementation=attention,
    )  # fmt: skip
    return LlamaModel(config)


@pytest.mark.parametrize("attention", ["eager", "sdpa", "by conversations"])
@torch.no_grad()
def test_packed_equals_separate(attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = llama("eager" if attention == "eager" else "sdpa").eval()
    segments = segments_of(PREFIXES, LENGTHS)
    ids = torch.randint(0, 50, segments.shape)
    sight = pack(segments)
    mask = additive(sight.seen, torch.float32)
    if attention == "by conversations":
        mask = by_conversations(segments, monkeypatch)
    hidden = model(ids, attention_mask=mask, position_ids=sight.queries).last_hidden_state
    assert hidden.isfinite().all()
    for row, own in enumerate(LENGTHS):
        prefix = ids[row][segments[row] == 0]
        for number in range(1, len(own) + 1):
            mine = segments[row] == number
            alone = model(torch.cat([prefix, ids[row][mine]])[None]).last_hidden_state[0, len(prefix) :]
            torch.testing.assert_close(hidden[row][mine], alone, atol=1e-5, rtol=1e-5)


def by_conversations(segments: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> PackedMask:
    """The mask, whatever it saves."""
    monkeypatch.setattr(packed_attention, "SAVES", 0)
    found = find_conversations(segments)
    assert found is not None
    return PackedMask.of(found, segments)


@pytest.mark.parametrize("heads", [4, 2, 1])
@pytest.mark.parametrize(
    ("prefixes", "lengths"), [(PREFIXES, LENGTHS), ((6, 6), ((3, 4, 5, 2, 8), (1,))), ((4, 7), ((), (3, 3)))]
)
def test_attention_by_conversations_is_the_dense_one(
    heads: int, prefixes: Sequence[int], lengths: Sequence[Sequence[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """States, and gradients of inputs and weights; a row may have no conversation, keys fewer heads than queries."""
    model, segments = llama(heads=heads).double(), segments_of(prefixes, lengths)
    sight, real = pack(segments), segments >= 0
    inputs = torch.randn(*segments.shape, 32, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(int(real.sum()), 32, dtype=torch.float64)
    found = []
    for mask in (additive(sight.seen, torch.float64), by_conversations(segments, monkeypatch)):
        states = model(inputs_embeds=inputs, attention_mask=mask, position_ids=sight.queries).last_hidden_state[real]
        learned = [layer.self_attn.k_proj.weight for layer in model.layers]
        found.append([states, *torch.autograd.grad((states * weight).sum(), [inputs, *learned])])
    for mine, its in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-9, atol=1e-11)


def test_keys_and_values_are_gathered_again_for_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept, they would hold the prefix once for every conversation."""
    at = by_conversations(segments_of(PREFIXES, LENGTHS), monkeypatch).conversations
    query, key, value = (torch.randn(2, 4, at.back.numel() // 2, 8, requires_grad=True) for _ in range(3))
    gather, again = packed_attention._gathered, []
    found = packed_attention.attend(query, key, value, at, {})
    monkeypatch.setattr(packed_attention, "_gathered", lambda *asked: again.append(asked[0]) or gather(*asked))
    found.sum().backward()
    assert {one.data_ptr() for one in again} == {key.data_ptr(), value.data_ptr()}


def test_the_mask_is_left_out_where_that_saves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many conversations; not of few, nor with one that is much longer, nor where a GPU would be waited for."""
    mllm = tiny_model(tiny_config()).mllm
    many, few = segments_of([30], [[10] * 20]), segments_of([30], [[10] * 2])
    uneven = segments_of([30], [[200, *[2] * 20]])
    sight = pack(many)
    assert isinstance(mllm.masks(sight), PackedMask)
    assert "seen" not in vars(sight), "no mask of tokens x tokens is made on the way"
    for other in (few, uneven):
        assert type(mllm.masks(pack(other))) is torch.Tensor
    assert find_conversations(many.to("meta")) is None
    mllm.text_config._attn_implementation = "eager"
    assert type(mllm.masks(sight)) is torch.Tensor


@pytest.mark.parametrize(
    ("prefixes", "lengths"),
    [((300, 100), ((40, 200, 7, 128), (256, 128))), ((128, 128), ((128, 384), (1,))), ((5, 9), LENGTHS)],
)
def test_flex_attentions_blocks_say_who_sees_whom(prefixes: Sequence[int], lengths: Sequence[Sequence[int]]) -> None:
    segments = segments_of(prefixes, lengths)
    (rows, tokens), size = segments.shape, packed_attention.BLOCK
    mask, seen = block_mask(segments), pack(segments).seen
    place = torch.arange(tokens)
    said = mask.mask_mod(torch.arange(rows)[:, None, None], torch.tensor(0), place[:, None], place)
    assert torch.equal(said, seen)

    def blocks(pairs: torch.Tensor, filler: bool) -> torch.Tensor:
        """(rows, tokens, tokens) as (rows, blocks, blocks, pairs of a block)."""
        more = (0, -tokens % size)
        filled = torch.nn.functional.pad(pairs, more * 2, value=filler)
        return filled.unflatten(2, (-1, size)).unflatten(1, (-1, size)).transpose(2, 3).flatten(3)

    full = listed(mask.full_kv_num_blocks, mask.full_kv_indices)
    part = listed(mask.kv_num_blocks, mask.kv_indices)
    assert not (full & part).any()
    assert blocks(seen, True)[full].all(), "in a full block everything is seen"
    assert not blocks(seen, False)[~(full | part)].any(), "a block that is left out has nothing to see"
    if tokens > 5 * size:
        assert full.any()


def listed(counts: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """(rows, blocks, blocks), bool, of a block mask's lists."""
    first = torch.arange(indices.shape[-1]) < counts[..., None]
    return torch.zeros(indices.shape, dtype=torch.bool).scatter(3, indices.long(), first)[:, 0]


def test_a_sight_of_one_row_is_causal() -> None:
    sight: Sight = pack(torch.tensor([[0, 0, 0]]))
    assert torch.equal(sight.seen[0], torch.ones(3, 3, dtype=torch.bool).tril())


def test_rows_in_another_order_are_refused() -> None:
    with pytest.raises(ValueError, match="rise along a row"):
        pack(torch.tensor([[0, 2, 1]]))
    with pytest.raises(ValueError, match="rise along a row"):
        pack(torch.tensor([[0, -1, 1]]))
