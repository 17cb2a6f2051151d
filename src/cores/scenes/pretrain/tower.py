"""The vision tower and the projector from scratch: every patch learns to say what it shows, in the words' own vectors.

A projected patch is trained to lie near the vectors of the words for what it shows (kind, colour, part), and to know
the boxes of that object and part. The language model starts with the same word vectors, so that a question's words
and the patches they mean are alike before its first lesson.

Legend: images = pictures of a batch, patches = 64, words = vectors of a vocabulary, width = 256, the language model's.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPVisionConfig, CLIPVisionModel

from cores.scenes.kinds import PARTS
from cores.scenes.pretrain.loop import Schedule, run
from cores.scenes.pretrain.render import COLOUR_NAMES, KIND_NAMES, MOST_PARTS, PART_OF, SIDE, Rendered

WIDTH = 256
PATCH = 16
GRID = SIDE // PATCH
BACKGROUND = 0.15  # weight of patches that show nothing; with 1 the classes are not learned at all
CLIP_MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]) * 255
CLIP_STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]) * 255


def tower_config() -> CLIPVisionConfig:
    """128 px pictures as 8 x 8 patches; 1.9 million parameters."""
    return CLIPVisionConfig(
        hidden_size=192,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=6,
        image_size=SIDE,
        patch_size=PATCH,
        projection_dim=WIDTH,
    )


class SeeingWords(nn.Module):
    """Tower, projector, word vectors and box reader, as they are trained together."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = CLIPVisionModel(tower_config())
        self.projector = nn.Sequential(nn.Linear(192, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))
        self.kinds = nn.Parameter(torch.randn(len(KIND_NAMES) + 1, WIDTH) * WIDTH**-0.5)
        self.colours = nn.Parameter(torch.randn(len(COLOUR_NAMES) + 1, WIDTH) * WIDTH**-0.5)
        self.parts = nn.Parameter(torch.randn(len(PARTS) + 1, WIDTH) * WIDTH**-0.5)
        self.boxes = nn.Linear(WIDTH, 8)

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Projected patches (images, patches, width) of pixels (images, 3, side, side)."""
        patches: Tensor = self.projector(self.tower(pixels).last_hidden_state[:, 1:])
        return patches

    def losses(self, seen: Tensor, labels: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Loss, a scalar, of `seen` (images, patches, width), and figures. `labels`: as `labels_of` gives them.

        The figures, where an object shows: how often each word is right, as shares, and the boxes' error in pixels.
        """
        clear = labels["kinds"][..., :-1].sum(-1)  # (images, patches): share of the patch that shows objects
        weight = clear + BACKGROUND * (1 - clear)
        total = seen.new_zeros(())
        right = {}
        for name in ("kinds", "colours", "parts"):
            logits = seen @ getattr(self, name).T
            truth = labels[name]
            total = total - ((truth * logits.log_softmax(-1)).sum(-1) * weight).sum() / weight.sum()
            main = clear > 0.6
            right[name] = float((logits.argmax(-1) == truth.argmax(-1))[main].float().mean())
        found = self.boxes(seen)  # (images, patches, 8)
        error = F.smooth_l1_loss(found, labels["boxes"], beta=0.05, reduction="none")
        use = (clear > 0.2).float()
        boxes = (error.mean(-1) * use).sum() / use.sum()
        right["pixels"] = float(((found - labels["boxes"]).abs().mean(-1) * use).sum().detach() / use.sum() * SIDE)
        return total + 10 * boxes, right


def pixels_of(pictures: NDArray[np.uint8]) -> Tensor:
    """Normalised pixels (images, 3, side, side) of pictures (images, side, side, 3), grey values 0 to 255."""
    values = torch.from_numpy(np.array(pictures)).float()
    return ((values - CLIP_MEAN) / CLIP_STD).permute(0, 3, 1, 2).contiguous()


def labels_of(data: Rendered, indices: NDArray[np.int64]) -> tuple[Tensor, dict[str, Tensor]]:
    """Pixels (images, 3, side, side) and labels of each patch, pictures in ascending order.

    `kinds`, `colours`, `parts` (images, patches, words): the share of every word, the last for nothing; `boxes`
    (images, patches, 8): of the object and the part that cover most of it, as shares of the side.
    """
    order = np.sort(indices)
    count = len(order)
    pixels = pixels_of(data.pictures[order])

    def patches(array: NDArray[np.int8]) -> Tensor:
        cut = torch.from_numpy(np.ascontiguousarray(array[order])).long().view(count, GRID, PATCH, GRID, PATCH)
        return cut.permute(0, 1, 3, 2, 4).reshape(count, GRID * GRID, PATCH * PATCH)[..., ::3]

    def share(classes: Tensor, number: int) -> Tensor:
        return (
            torch.zeros(*classes.shape[:2], number).scatter_add_(2, classes, torch.ones(classes.shape))
            / classes.shape[2]
        )

    objects, parts = patches(data.objects), patches(data.parts)  # (images, patches, pixels)
    kinds = torch.from_numpy(data.kinds[order]).long()
    colours = torch.from_numpy(data.colours[order]).long()
    flat = objects.clamp(min=0).flatten(1)
    nothing = objects < 0
    kind = kinds.gather(1, flat).view_as(objects)
    colour = colours.gather(1, flat).view_as(objects)
    labels = {
        "kinds": share(kind.masked_fill(nothing, len(KIND_NAMES)), len(KIND_NAMES) + 1),
        "colours": share(colour.masked_fill(nothing, len(COLOUR_NAMES)), len(COLOUR_NAMES) + 1),
        "parts": share(parts.masked_fill(nothing, len(PARTS)), len(PARTS) + 1),
    }
    # The part that covers most of a patch: which object's, and which of its kind's parts.
    pair = torch.where(nothing, 0, 1 + objects * len(PARTS) + parts)
    votes = share(pair, 1 + 5 * len(PARTS))[..., 1:]
    main = votes.argmax(-1)  # (images, patches)
    thing, part = main // len(PARTS), main % len(PARTS)
    slot_of = torch.zeros(len(KIND_NAMES) + 1, len(PARTS), dtype=torch.long)
    for number, names in enumerate(PART_OF):
        for order_in_kind, name in enumerate(names):
            slot_of[number, name] = order_in_kind + 1
    slot = slot_of[kinds.gather(1, thing), part]
    boxes = torch.from_numpy(data.boxes[order]).float() / SIDE  # (images, things, 1 + parts, 4)
    flat_boxes = boxes.flatten(1, 2)
    at = thing * (1 + MOST_PARTS)
    whole = flat_boxes.gather(1, at[..., None].expand(-1, -1, 4))
    piece = flat_boxes.gather(1, (at + slot)[..., None].expand(-1, -1, 4))
    labels["boxes"] = torch.cat([whole, piece], -1)
    return pixels, labels


def train(out: Path, data: Rendered, unseen: Rendered, steps: int, images: int = 64) -> None:
    """Train tower, projector and word vectors; `out`/tower.pt holds the state.

    `steps`: of the optimiser; `images`: of a batch.
    """
    torch.manual_seed(0)
    model = SeeingWords()

    def loss_of(number: int) -> Tensor:
        rng = np.random.default_rng([2, number])
        pixels, labels = labels_of(data, rng.choice(len(data), images, replace=False))
        return model.losses(model.encode_images(pixels), labels)[0]

    @torch.no_grad()
    def measure() -> dict[str, float]:
        pixels, labels = labels_of(unseen, np.arange(min(256, len(unseen))))
        return model.losses(model.encode_images(pixels), labels)[1]

    schedule = Schedule(steps=steps, peak=1e-3, warmup=100, fall=0.35, every=100)
    run(out / "tower.pt", {"model": model}, model.parameters(), schedule, loss_of, measure)
