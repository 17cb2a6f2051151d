"""Proof that a model with its LoRA folded in says what it said with the LoRA beside its layers."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from cores.checkpoints.load import load_model
from cores.checkpoints.probe import TOLERANCE, largest_difference, probe, smallest_iou
from cores.checkpoints.published.convert_lora import Folded
from cores.checkpoints.published.keys import PUBLISHED, rename
from cores.errors import CheckFailed
from cores.processing.processor import CoresProcessor

IOU = 0.999  # of masks, where rounding to 16 bits is between


@dataclass(frozen=True, slots=True)
class Proof:
    """Largest difference of low-res logits, relative; smallest IoU of the masks. Both in fp32 on a drawn picture."""

    difference: float
    iou: float


class Beside(nn.Module):
    """A linear layer as LoRA trains it: its first weight, and A and B beside it."""

    def __init__(self, layer: nn.Linear, weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float) -> None:
        super().__init__()
        self.bias, self.scale = layer.bias, scale
        self.weight, self.a, self.b = (nn.Parameter(value.float()) for value in (weight, a, b))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Args: `inputs` (..., in). Returns (..., out)."""
        down = nn.functional.linear(inputs, self.a)
        return nn.functional.linear(inputs, self.weight, self.bias) + self.scale * nn.functional.linear(down, self.b)


@torch.no_grad()
def prove(folder: Path, tensors: Folded, device: str = "cpu", seed: int = 0) -> Proof:
    """Ask the model that was written about a drawn picture, then again with the LoRA beside its layers.

    Raises CheckFailed when the masks differ: by more than 1e-4 of the largest logit, or, where the weights were
    rounded to 16 bits after folding, by an IoU under 0.999.
    """
    model, processor = load_model(folder, torch.float32).to(device).eval(), CoresProcessor.from_pretrained(folder)
    folded = probe(model, processor, seed)
    rounded = False
    for name in tensors.adapted:
        place = rename(name, PUBLISHED)
        assert place is not None
        owner, _, leaf = place.removesuffix(".weight").rpartition(".")
        layer = model.get_submodule(f"{owner}.{leaf}")
        a, b = (value.to(device) for value in tensors.matrices(name))
        weight = tensors.before(name).to(device)
        scale = tensors.alpha / a.shape[0]
        exact = weight.float() + scale * (b @ a)
        rounded |= not torch.allclose(layer.weight, exact, rtol=1e-6, atol=1e-8)
        setattr(model.get_submodule(owner), leaf, Beside(layer, weight, a, b, scale))
    beside = probe(model, processor, seed)
    proof = Proof(largest_difference(beside, folded), smallest_iou(beside, folded))
    same = proof.iou >= IOU if rounded else proof.difference <= TOLERANCE
    if not same:
        raise CheckFailed(
            f"{folder.name}: the folded model's masks are not those of the adapter: low-res logits differ by "
            f"{proof.difference:.1e} relative, masks have an IoU of {proof.iou:.4f} (expected at most {TOLERANCE:.0e} "
            f"in float32, at least {IOU} in 16 bits); nothing was written. Store it with --dtype float32"
        )
    return proof
