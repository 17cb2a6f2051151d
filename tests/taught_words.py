"""The tiny model that comes with cores after half a minute of lessons about one scene: it says that scene's boxes."""

from functools import cache
from pathlib import Path
from random import Random

import torch

from cores.checkpoints.load import load
from cores.checkpoints.save import save
from cores.scenes.pretrain.words import Lessons, Pupil
from cores.scenes.source import Scenes, open_scenes

SCENE = 4  # of `scenes|val`: its questions are of a part, of a whole thing, and of something that is not there


def scenes() -> Scenes:
    return open_scenes("val")


@cache
def taught(folder: Path) -> Path:
    """The taught model's folder."""
    model, processor = load(None, "cpu", torch.float32)
    torch.manual_seed(0)
    pupil = Pupil(model, processor).requires_grad_()
    lessons, rng = Lessons(scenes(), processor.writer.words.refusals[0]), Random(0)
    optimiser = torch.optim.AdamW(pupil.parameters(), lr=1.5e-3)
    for step in range(60):
        cut = [lesson for _ in range(4) if (lesson := lessons.crop(SCENE, rng)) is not None]
        loss, figures = pupil.losses([lessons.whole(SCENE, rng)] if step % 2 else cut)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(pupil.parameters(), 1.0)
        optimiser.step()
        print(step, round(loss.item(), 3), figures)
    return save(model.eval(), processor, folder / "model")
