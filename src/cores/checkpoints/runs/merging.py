"""A run's checkpoint as a plain model folder, once it is proved that both say the same.

Legend: levels = of the chain, masks = one a question, h, w = low-res logits.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from cores.checkpoints.find import find, is_checkpoint
from cores.checkpoints.load import load_model
from cores.checkpoints.probe import TOLERANCE, largest_difference, probe, smallest_iou
from cores.checkpoints.runs.learned import fold_lora
from cores.checkpoints.runs.origin import Base
from cores.checkpoints.save import Card, write_model
from cores.errors import CheckFailed, CheckpointError
from cores.processing.processor import CoresProcessor
from cores.whole import whole_folder

SAME_MASKS = 0.999  # IoU that masks keep when weights are rounded to the stored dtype


@dataclass(frozen=True, slots=True)
class Merged:
    """What merging found. `difference`: largest of low-res logits, relative, merged against unmerged in fp32.

    `iou`: smallest of the masks after rounding to the stored dtype, 1 where nothing was rounded away.
    """

    folder: Path
    checkpoint: Path
    difference: float
    iou: float


def merge(
    run: str | Path,
    folder: str | Path,
    *,
    dtype: torch.dtype | None = None,
    device: str = "cpu",
    seed: int = 0,
    replace: bool = False,
    about: str = "",
) -> Merged:
    """Fold what a run learned into its base's weights and write a model folder, whole or not at all.

    Before anything is kept, a drawn picture is asked about through the checkpoint, the merged model and the files
    written, in fp32 on `device`. `run`: its folder (the best checkpoint) or one of its checkpoints; `dtype`: of the
    stored weights, None for fp32; `seed`: for an exemplar drawn at random; `about`: what the model card says of it.

    Raises CheckpointError when `run` is no run's, its base has changed, or `folder` is there (without `replace`);
    UserError when that cannot be written; CheckFailed when the merged model says something else (low-res logits more
    than 1e-4 apart, relative to the largest), or does after rounding to 16 bits (IoU < 0.999).
    """
    checkpoint, folder = find(run), Path(folder)
    if not is_checkpoint(checkpoint):
        raise CheckpointError(f"{run}: is a plain model already: there is nothing to merge")
    if folder.exists() and not replace:
        raise CheckpointError(f"{folder} exists already: take another name, or say that it may be replaced")
    processor = CoresProcessor.from_pretrained(checkpoint)
    model = load_model(checkpoint, torch.float32).to(device).eval()
    before = probe(model, processor, seed)
    fold_lora(model)
    difference = largest_difference(before, probe(model, processor, seed))
    if not difference <= TOLERANCE:
        raise CheckFailed(
            f"{checkpoint}: the merged model's masks are not the checkpoint's: low-res logits differ by "
            f"{difference:.1e} relative, expected at most {TOLERANCE:.0e}; nothing was written"
        )
    with whole_folder(folder, replace) as part:
        write_model(model, processor, part, _card(checkpoint, folder.name, about), dtype)
        del model  # so that two never stand in memory
        stored = load_model(part, torch.float32).to(device).eval()
        after = probe(stored, CoresProcessor.from_pretrained(part), seed)
        iou = smallest_iou(before, after)
        if dtype in (None, torch.float32):  # a pixel at 0 may fall to either side, whatever the rounding
            difference = max(difference, largest_difference(before, after))
            if not difference <= TOLERANCE:
                raise CheckFailed(
                    f"{checkpoint}: the files that were written say something else: low-res logits differ by "
                    f"{difference:.1e} relative, expected at most {TOLERANCE:.0e}; nothing was written"
                )
        elif not iou >= SAME_MASKS:
            raise CheckFailed(
                f"{checkpoint}: in {dtype} its masks are others: IoU {iou:.4f}, expected at least {SAME_MASKS}; "
                "nothing was written: store it in float32 (or float16, which rounds less than bfloat16)"
            )
    return Merged(folder, checkpoint, difference, iou)


def _card(checkpoint: Path, title: str, about: str) -> Card:
    """What the run's own files say about it."""
    from cores.recipe import load_recipe

    recipe, state = checkpoint.parent / "recipe.yaml", checkpoint / "trainer_state.json"
    data: list[str] = []
    if recipe.exists():
        data = [name for family in load_recipe(recipe).data.sources.values() for name in family]
    score = json.loads(state.read_text("utf-8")).get("best_metric") if state.exists() else None
    figures = {} if score is None else {"gIoU of the best checkpoint in training": float(score)}
    bases = [_named(path) for path in Base.load(checkpoint).paths.values()]
    return Card(title=title, about=about, base=bases, data=data, figures=figures)


def _named(base: str) -> str:
    """A base without the folders of this machine; a run's checkpoint with its run: `RUN/best`."""
    path = Path(base)
    if not path.is_absolute():
        return base
    return f"{path.parent.name}/{path.name}" if is_checkpoint(path) else path.name
