"""A small SAM from scratch: objects and parts from boxes, points, or one token, with or without a mask prompt.

Legend: images = pictures of a batch, masks = images * asked masks of each, low = 64, the low-res mask's side.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import SamConfig, SamMaskDecoderConfig, SamPromptEncoderConfig, SamVisionConfig

from cores.modeling.segmenters.sam import SamSegmenter
from cores.scenes.kinds import PARTS
from cores.scenes.pretrain.loop import Schedule, run
from cores.scenes.pretrain.render import SIDE, Rendered, bounds

MEAN = torch.tensor([123.675, 116.28, 103.53])
STD = torch.tensor([58.395, 57.12, 57.375])
DIM = 128
SMALLEST = 60  # pixels; what shows less is not asked


def sam_config() -> SamConfig:
    """128 px pictures, 16 x 16 features, 64 x 64 low-res masks; 2.8 million parameters."""
    vision = SamVisionConfig(
        hidden_size=160,
        output_channels=DIM,
        num_hidden_layers=6,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=8,
        mlp_dim=640,
        window_size=0,
        use_rel_pos=False,  # absolute positions are enough at 16 x 16, and a third faster
        global_attn_indexes=[0, 1, 2, 3, 4, 5],
        num_pos_feats=DIM // 2,
        initializer_range=0.02,  # the library's 1e-10 is for loading only: nothing would ever start to learn
    )
    prompt = SamPromptEncoderConfig(hidden_size=DIM, image_size=SIDE, patch_size=8, mask_input_channels=16)
    decoder = SamMaskDecoderConfig(hidden_size=DIM, mlp_dim=384, num_attention_heads=8, iou_head_hidden_dim=64)
    return SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)


def new_sam() -> SamSegmenter:
    """A SAM fit for training from scratch: PyTorch's own start for decoder and prompts, gentle position waves."""
    model = SamSegmenter(sam_config())
    for part in (model.mask_decoder, model.prompt_encoder):
        for module in part.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
    model.shared_image_embedding.positional_embedding.data.normal_(0, 1.0)
    return model


class TokenFromBox(nn.Module):
    """One prompt token from where the target is: stands in for the language model while the decoder learns.

    Reads the target's box, a second box when it has two places, the box of its object, and which part it is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Embedding(len(PARTS) + 1, 16)
        self.mlp = nn.Sequential(
            nn.Linear(12 + 16, 256), nn.GELU(), nn.Linear(256, 256), nn.GELU(), nn.Linear(256, DIM)
        )

    def forward(self, boxes: Tensor, part: Tensor) -> Tensor:
        """Args: `boxes` (masks, 12) shares of the side, zeros for none; `part` (masks,). Returns (masks, 1, DIM)."""
        token: Tensor = self.mlp(torch.cat([boxes * 2 - 1, self.part(part)], dim=-1))[:, None]
        return token


def box_of(mask: NDArray[np.bool_]) -> list[float]:
    """Left, top, right, bottom of a mask (side, side) with any pixel inside, as shares of the side."""
    return [edge / SIDE for edge in bounds(mask)]


Wanted = tuple[NDArray[np.bool_], list[float], int, NDArray[np.bool_]]


def ask(data: Rendered, index: int, rng: np.random.Generator, count: int) -> list[Wanted]:
    """Things to segment in one picture: (mask, boxes of 12 numbers, part or the one after the last, object's mask)."""
    objects, parts, kinds = data.objects[index], data.parts[index], data.kinds[index]
    asked: list[Wanted] = []
    while len(asked) < count:
        thing = int(rng.integers((kinds >= 0).sum()))
        whole = objects == thing
        if rng.random() < 0.15:  # all of its kind
            same = [n for n in range(len(kinds)) if kinds[n] == kinds[thing]]
            each = [m for m in (objects == n for n in same) if m.sum() >= SMALLEST]
            if len(each) == 2:
                both = each[0] | each[1]
                asked.append((both, box_of(each[0]) + box_of(each[1]) + box_of(both), len(PARTS), both))
                continue
        if whole.sum() < SMALLEST:
            continue
        box = box_of(whole)
        if rng.random() < 0.4:
            asked.append((whole, box + [0.0] * 4 + box, len(PARTS), whole))
            continue
        here = np.unique(parts[whole])
        part = int(here[rng.integers(len(here))])
        mask = whole & (parts == part)
        if mask.sum() >= SMALLEST:
            asked.append((mask, box_of(mask) + [0.0] * 4 + box, part, whole))
    return asked


def batch(data: Rendered, indices: NDArray[np.int64], rng: np.random.Generator, count: int) -> tuple[Tensor, ...]:
    """Pixels (images, 3, side, side), truth (masks, side, side), boxes (masks, 12), part (masks,), whole as truth."""
    indices = np.sort(indices)
    asked = [one for i in indices for one in ask(data, int(i), rng, count)]
    pictures = torch.from_numpy(np.ascontiguousarray(data.pictures[indices]))
    pixels = ((pictures.float() - MEAN) / STD).permute(0, 3, 1, 2).contiguous()
    truth = torch.from_numpy(np.stack([a[0] for a in asked])).float()
    whole = torch.from_numpy(np.stack([a[3] for a in asked])).float()
    return (
        pixels,
        truth,
        torch.tensor([a[1] for a in asked], dtype=torch.float),
        torch.tensor([a[2] for a in asked]),
        whole,
    )


def mask_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Balanced BCE + DICE, a scalar, of `logits` and `truth` (masks, low, low).

    Inside and outside weigh the same, or all-background wins.
    """
    bce = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").flatten(1)
    inside = truth.flatten(1)
    balanced = (bce * inside).sum(1) / inside.sum(1).clamp(min=1) + (bce * (1 - inside)).sum(1) / (1 - inside).sum(
        1
    ).clamp(min=1)
    chance = logits.sigmoid().flatten(1)
    dice = 1 - (2 * (chance * inside).sum(1) + 1) / (chance.sum(1) + inside.sum(1) + 1)
    return (0.5 * balanced + 0.5 * bce.mean(1) * 2 + dice).mean()


def prompts_of(
    model: SamSegmenter,
    token: TokenFromBox,
    how: str,
    boxes: Tensor,
    part: Tensor,
    truth: Tensor,
    rng: np.random.Generator,
) -> Tensor:
    """Sparse prompts (masks, n, DIM) of one kind: `token`, `box` or `point`.

    Args: `boxes` (masks, 12) and `part` (masks,) as `TokenFromBox` takes them; `truth` (masks, side, side), from which
    points are drawn.
    """
    found: Tensor
    if how == "token":
        found = token(boxes, part)
        return found
    if how == "box":
        both = (boxes[:, 4:8] != 0).any(1, keepdim=True)
        corners = torch.where(both, boxes[:, 8:12], boxes[:, :4]) * SIDE
        found = model.prompt_encoder._embed_boxes(corners[:, None])[:, 0]
        return found
    points = []
    for mask in truth.numpy():
        rows, columns = np.nonzero(mask)
        pick = int(rng.integers(len(rows)))
        points.append([columns[pick], rows[pick]])
    labels = torch.ones(len(points), 1, 1, dtype=torch.int)
    places = torch.tensor(points, dtype=torch.float)[:, None, None]
    found = model.prompt_encoder._embed_points(places, labels, pad=True)[:, 0]
    return found


def step(
    model: SamSegmenter,
    token: TokenFromBox,
    data: Rendered,
    indices: NDArray[np.int64],
    rng: np.random.Generator,
    how: str,
    count: int = 8,
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, a scalar, of one batch with one kind of prompt; logits (masks, low, low); truth (masks, side, side).

    Half of the `token` batches have the object's mask, not quite right, as mask prompt. `count`: masks of a picture.
    """
    pixels, truth, boxes, part, whole = batch(data, indices, rng, count)
    image_index = torch.arange(len(pixels)).repeat_interleave(count)
    sparse = prompts_of(model, token, how, boxes, part, truth, rng)
    low_truth = F.avg_pool2d(truth[:, None], 2)[:, 0]
    prompt = None
    if how == "token" and rng.random() < 0.5:  # the chain's second level: the object as mask prompt, not quite right
        coarse = F.avg_pool2d(whole[:, None], 2)[:, 0]
        blur = F.avg_pool2d(coarse[:, None], 5, stride=1, padding=2)[:, 0] if rng.random() < 0.5 else coarse
        prompt = (blur - 0.5) * float(rng.uniform(4, 30)) + torch.randn_like(blur)
    logits = model.decode(model.encode(pixels), sparse, image_index, prompt)
    return mask_loss(logits, low_truth), logits, truth


def iou(logits: Tensor, truth: Tensor) -> Tensor:
    """IoU of each mask at the picture's size. `logits` (masks, low, low), `truth` (masks, side, side)."""
    full = F.interpolate(logits[:, None], size=truth.shape[-2:], mode="bilinear")[:, 0] > 0
    inside = truth > 0.5
    return (full & inside).flatten(1).sum(1) / (full | inside).flatten(1).sum(1).clamp(min=1)


@torch.no_grad()
def measure(model: SamSegmenter, token: TokenFromBox, data: Rendered) -> dict[str, float]:
    """Mean IoU, a fraction of 1, on up to 96 unseen scenes by kind of prompt."""
    model.eval()
    found = {}
    for how in ("token", "box", "point"):
        rng = np.random.default_rng(0)
        scores = [
            iou(*step(model, token, data, np.arange(i, i + 16), rng, how)[1:])
            for i in range(0, min(96, len(data)), 16)
        ]
        found[how] = float(torch.cat(scores).mean())
    model.train()
    return found


def train(out: Path, data: Rendered, unseen: Rendered, steps: int, images: int = 10) -> None:
    """Train segmenter and one-token prompts; `out`/segmenter.pt holds the state.

    `steps`: of the optimiser; `images`: of a batch.
    """
    torch.manual_seed(0)
    model, token = new_sam(), TokenFromBox()
    weights = [p for n, p in model.named_parameters() if "positional_embedding" not in n] + list(token.parameters())

    def loss_of(number: int) -> Tensor:
        rng = np.random.default_rng([1, number])
        how = ("token", "box", "token", "point", "token", "token")[number % 6]
        return step(model, token, data, rng.integers(0, len(data), images), rng, how)[0]

    schedule = Schedule(steps=steps, peak=1e-3, warmup=200, fall=0.35, every=300)
    modules: dict[str, nn.Module] = {"model": model, "token": token}
    run(out / "segmenter.pt", modules, weights, schedule, loss_of, lambda: measure(model, token, unseen))
