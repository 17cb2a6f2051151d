"""The tiny model after it has learned two pictures by heart: real answers, masks and refusals, in a few seconds."""

from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tiny import tiny_config, tiny_model
from tiny_tokenizer import tiny_processor

from cores.data.sample import Conversation, Sample, Target, Turn
from cores.masks import Mask, encode
from cores.modeling import CoresModel
from cores.processing import CoresProcessor

SIZE = (40, 60)  # (h, w)
COLORS = {"kettle": (210, 40, 40), "cup": (40, 60, 210), "knife": (40, 190, 60)}
PLACES = (  # rows and columns of each thing, by picture
    {"kettle": (slice(4, 24), slice(4, 24)), "cup": (slice(16, 36), slice(36, 56))},
    {"cup": (slice(4, 24), slice(8, 28)), "knife": (slice(8, 36), slice(40, 54))},
)


def mask(picture: int, name: str) -> Mask:
    """Where a thing is, (h, w)."""
    found = np.zeros(SIZE, dtype=bool)
    found[PLACES[picture][name]] = True
    return found


def sample(picture: int) -> Sample:
    """Two things each asked for alone, then both together; one that is not there; one question that wants text."""
    pixels = np.full((*SIZE, 3), 230, dtype=np.uint8)
    for name, place in PLACES[picture].items():
        pixels[place] = COLORS[name]
    present, absent = list(PLACES[picture]), next(name for name in COLORS if name not in PLACES[picture])
    targets = {name: Target(encode(mask(picture, name)), phrase=None) for name in present}
    turns = [Turn(name, targets=(targets[name],)) for name in present]
    turns.append(Turn(" and ".join(present), targets=tuple(targets[name] for name in present)))
    turns.append(Turn(absent))
    turns.append(Turn("how many cup are there?", answer="one cup.", form="raw"))
    return Sample(
        Image.fromarray(pixels),
        SIZE,
        tuple(Conversation((turn,)) for turn in turns),
        meta={"name": f"picture-{picture}", "kinds": ["alone", "alone", "both", "absent", "text"]},
    )


@cache
def learned() -> tuple[CoresModel, CoresProcessor]:
    """The model and its processor. Do not change them: all tests share them."""
    processor = tiny_processor()
    model = tiny_model(tiny_config(balanced_bce=True, text_weight=1.0))
    samples = [sample(0), sample(1)]
    batch = processor.collate(samples, seed=0, epoch=0, indices=[0, 1], mode="val")
    with torch.no_grad():
        batch["features"] = model.encode(batch.pop("segmenter_pixels"))
    for tower in (model.segmenter.vision_encoder, model.mllm.model.vision_tower):  # as in the paper
        tower.requires_grad_(False)
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.Adam(learning, lr=4e-3, betas=(0.9, 0.95))
    for _ in range(400):  # about a hundred are enough
        loss = model(**batch).loss
        if loss < 0.03:
            break
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimiser.step()
    return model.eval(), processor


def save(folder: Path) -> Path:
    """The learned model as a model folder."""
    model, processor = learned()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
