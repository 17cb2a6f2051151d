"""One run of the tiny model, cut into processes and micro-batches as it is told: what a step holds is the same.

`python -m torch.distributed.run --nproc-per-node N split_run.py FOLDER RUN [poison] section.key=value...`; with
`poison` the second process's model answers no question about knives with numbers.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tiny_run import Squares, tiny_recipe
from tiny_tokenizer import tiny_tokenizer

from cores.data.sample import Conversation, Sample, Target, Turn
from cores.errors import CheckFailed
from cores.modeling import CoresModel
from cores.recipe import load_recipe
from cores.training import run
from cores.training.ranks import end_at_once, leave
from cores.training.trainer import CoresTrainer

STEPS, PICTURES = 50, 8  # optimiser steps, and pictures in each
SETTINGS = [
    "data.sources={squares: [squares|train], talk: [talk|train]}",
    "data.rates={squares: 2, talk: 1}",
    f"trainer.max_steps={STEPS}",
    "trainer.learning_rate=1e-3",
    "losses.location=0.5",
    "trainer.seed=2",  # with 1, the input of a ReLU lies within rounding of 0 in step 24: a kink of 2e-5
    "lora.dropout=0",  # each process draws its own
]


class Mixed(Squares):
    """Squares, the knives' locations unknown, the breads not there at all; or conversations without any mask."""

    def __getitem__(self, i: int) -> Sample:
        if self.name.startswith("talk"):
            pixels = np.random.default_rng([9, i]).integers(0, 255, (30 + i, 40, 3), dtype=np.uint8)
            turns = [
                Turn("what is it?", "a kettle" + " a cup" * (i % 5), form="raw"),
                Turn("and?", "bread", form="raw"),
            ]
            talk = Conversation(tuple(turns[: 1 + i % 2]))
            return Sample(Image.fromarray(pixels), (30 + i, 40), (talk,))
        sample = super().__getitem__(i)
        return replace(sample, conversations=tuple(_without_location(one) for one in sample.conversations))


def _without_location(conversation: Conversation) -> Conversation:
    (turn,) = conversation.turns
    if turn.query != "knife":
        return conversation
    return Conversation((replace(turn, targets=(Target(turn.targets[0].mask),)),))


def cut_run(folder: Path, name: str, *settings: str) -> CoresTrainer:
    """The run in `folder/name`, on the bases in `folder/bases`; the trainer at its end."""
    recipe = load_recipe(folder / "tiny.yaml", [*SETTINGS, *settings])
    return run.train(recipe, folder / name, Mixed, device="cpu", quiet=True)


def cut_into(batch: int, accumulation: int) -> list[str]:
    """Settings by which a process has `accumulation` micro-batches of `batch` pictures a step."""
    return [f"trainer.per_device_train_batch_size={batch}", f"trainer.gradient_accumulation_steps={accumulation}"]


def prepare(folder: Path) -> None:
    """Write the bases and the recipe."""
    tiny_recipe(folder)


def poison(word: str) -> None:
    """From now on runs train a model that reads a word, one of a picture's three squares, as no numbers."""
    choose = run.choose_parts

    def choose_and_poison(model: CoresModel, *args: Any) -> None:
        choose(model, *args)
        (token,) = tiny_tokenizer().encode(word, add_special_tokens=False)
        model.mllm.get_input_embeddings().register_forward_hook(
            lambda _, ids, vectors: vectors.masked_fill((ids[0] == token)[..., None], float("nan"))
        )

    run.choose_parts = choose_and_poison


if __name__ == "__main__":
    folder, name, *settings = sys.argv[1:]
    if "poison" in settings:
        settings.remove("poison")
        if os.environ["RANK"] == "1":
            poison("knife")
    code = 0
    try:
        cut_run(Path(folder), name, *settings).end()
    except CheckFailed as error:
        sys.stderr.write(f"cores: {error}\n")
        code = 1
    leave()
    end_at_once(code)
