"""The mask losses against their formulas, and what must not change them."""

import torch

from cores.modeling.losses import bce_loss, dice_loss, mask_losses


def test_values_of_the_formulas():
    logits, truth = torch.tensor([[0.0, 2.0]]), torch.tensor([[0.0, 1.0]])
    p = torch.sigmoid(logits)
    bce = -(torch.log(1 - p[0, 0]) + torch.log(p[0, 1])) / 2
    dice = 1 - (2 * p[0, 1] / 1000 + 1e-6) / (p.sum() / 1000 + 1 / 1000 + 1e-6)
    torch.testing.assert_close(bce_loss(logits, truth), bce)
    torch.testing.assert_close(dice_loss(logits, truth), dice)


def test_ignored_pixels_carry_neither_value_nor_gradient():
    torch.manual_seed(0)
    logits = torch.randn(5, 6, requires_grad=True)
    truth, ignore = (torch.rand(5, 6) > 0.5), torch.rand(5, 6) > 0.7
    loss = sum(mask_losses([logits], [truth], [ignore]))
    flipped = sum(mask_losses([logits], [truth ^ ignore], [ignore]))
    torch.testing.assert_close(loss, flipped)
    loss.backward()
    assert (logits.grad[ignore] == 0).all()
    assert (logits.grad[~ignore] != 0).all()


def test_mean_over_masks_of_different_sizes_and_none():
    torch.manual_seed(0)
    logits = [torch.randn(3, 4), torch.randn(8, 2)]
    truth = [torch.rand(3, 4) > 0.5, torch.rand(8, 2) > 0.5]
    bce, dice = mask_losses(logits, truth)
    torch.testing.assert_close(bce, (bce_loss(logits[0], truth[0]) + bce_loss(logits[1], truth[1])) / 2)
    torch.testing.assert_close(dice, (dice_loss(logits[0], truth[0]) + dice_loss(logits[1], truth[1])) / 2)
    assert [float(x) for x in mask_losses([], [])] == [0.0, 0.0]
