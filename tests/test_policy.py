"""The loss of drawn answers: TRL's on the same log-probabilities, and by hand."""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

from cores.modeling.policy import Drawn, advantages, policy_losses


def drawn_of(tokens: int, **fields):
    chance = torch.Generator().manual_seed(1)
    now = -torch.rand(tokens, generator=chance) * 3
    old, reference = (now + 0.4 * torch.randn(tokens, generator=chance) for _ in range(2))
    told = torch.randn(tokens, generator=chance)
    nothing = torch.zeros(tokens, dtype=torch.long)
    return now.double().requires_grad_(), Drawn(
        nothing, nothing, told.double(), old.double(), reference.double(), **fields
    )


def test_the_gradient_stops_where_the_ratio_has_gone_too_far():
    """Better answers are not made likelier beyond the clip, worse ones not unlikelier; the way back is open."""
    now = torch.tensor([0.5, 0.5, -0.5, -0.5, 0.1], dtype=torch.double, requires_grad=True)
    told = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0], dtype=torch.double)
    nothing = torch.zeros(5, dtype=torch.long)
    loss, apart, cut = policy_losses(now, Drawn(nothing, nothing, told, torch.zeros(5, dtype=torch.double)))
    loss.backward()
    assert (now.grad != 0).tolist() == [False, True, True, False, True]
    assert int(cut) == 2
    assert float(apart.detach()) == 0
    expected = -(1.2 - now[1].exp() + now[2].exp() - 0.8 + now[4].exp())
    assert float(loss.detach()) == pytest.approx(float(expected.detach()))


def test_at_the_model_that_drew_them_it_is_the_policy_gradient():
    now, drawn = drawn_of(30)
    drawn = Drawn(drawn.places, drawn.words, drawn.advantages, now.detach())
    policy_losses(now, drawn)[0].backward()
    assert torch.allclose(now.grad, -drawn.advantages)


def test_a_group_of_equal_rewards_teaches_nothing():
    rewards = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.5, 1.0]])
    found = advantages(rewards)
    assert torch.equal(found[0], torch.zeros(3))
    assert torch.allclose(found[1], torch.tensor([-1.0, 0.0, 1.0]), atol=1e-3)
    assert torch.allclose(advantages(rewards, scaled=False)[1], torch.tensor([-0.5, 0.0, 0.5]))


@pytest.mark.parametrize(("clip", "kl"), [((0.2, 0.2), 0.0), ((0.2, 0.28), 0.04), ((0.1, 0.3), 1.0)])
def test_it_is_the_loss_of_trl(clip, kl):
    """TRL's own function, on its trainer's fields that it reads: means over all tokens (`dapo`)."""
    pytest.importorskip("trl", reason="TRL is not installed: pip install trl")
    from trl.trainer.grpo_trainer import GRPOTrainer

    answers, length = 6, 5
    now, drawn = drawn_of(answers * length, clip=clip, kl=kl)
    shape = (answers, length)
    each = drawn.advantages.view(shape)[:, 0]  # one an answer
    mask = torch.ones(shape, dtype=torch.long)
    mask[2, 3:] = 0
    kept = mask.flatten().bool()
    args = SimpleNamespace(use_bias_correction_kl=False, delta=None, steps_per_generation=1)
    one = {name: lambda value, *_, **__: value for name in ("gather", "gather_for_metrics", "reduce")}
    trainer = SimpleNamespace(
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level="token",
        beta=kl,
        args=args,
        loss_type="dapo",
        epsilon_low=clip[0],
        epsilon_high=clip[1],
        use_vllm=False,
        model=SimpleNamespace(training=True),
        accelerator=SimpleNamespace(num_processes=1, **one),
        current_gradient_accumulation_steps=1,
        _entropy_bonus_enabled=False,
        _metrics=defaultdict(lambda: defaultdict(list)),
        _get_per_token_logps_and_entropies=lambda *_, **__: (now.view(shape), torch.zeros(shape), None),
    )
    inputs = {
        "prompt_ids": torch.zeros((answers, 1), dtype=torch.long),
        "prompt_mask": torch.ones((answers, 1), dtype=torch.long),
        "completion_ids": torch.zeros(shape, dtype=torch.long),
        "completion_mask": mask,
        "advantages": each,
        "old_per_token_logps": drawn.old.view(shape),
        "ref_per_token_logps": drawn.reference.view(shape),
        "num_items_in_batch": mask.sum(),
    }
    theirs = GRPOTrainer._compute_loss(trainer, None, inputs)
    (wanted,) = torch.autograd.grad(theirs, now)
    own = Drawn(
        drawn.places[kept],
        drawn.words[kept],
        each[:, None].expand(shape).flatten()[kept],
        drawn.old[kept],
        drawn.reference[kept],
        clip,
        kl,
    )
    loss = policy_losses(now[kept], own)[0] / int(kept.sum())
    (found,) = torch.autograd.grad(loss, now)
    assert float(loss.detach()) == pytest.approx(float(theirs.detach()), rel=1e-6)
    assert torch.allclose(found, wanted, rtol=1e-6, atol=1e-12)
