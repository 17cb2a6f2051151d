"""A training run of the tiny model: its bases on disk, something to ask, and a recipe of a few steps."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tiny import tiny_model
from tiny_tokenizer import tiny_tokenizer

from cores.data.sample import Conversation, Sample, Target, Turn
from cores.masks import encode
from cores.recipe import Recipe, load_recipe

RECIPE = """
model:
  bases: {bases}
  refiner: paper
  train: [lora, embeddings, head, projection, refiner, mask_decoder]
lora: {{r: 2, alpha: 4, dropout: 0.1}}
prompt: {{format: plain, exemplars: none}}
data:
  sources: {{squares: [squares|train]}}
  questions_per_image: 2
trainer:
  max_steps: 4
  per_device_train_batch_size: 2
  learning_rate: 1e-2
  warmup_steps: 2
  adam_beta2: 0.95
  logging_steps: 1
  save_strategy: "no"
  seed: 1
"""


class Squares:
    """Pictures (h, w) of noise with three bright squares, each with its own question and one for what is not there."""

    def __init__(self, name: str = "squares|train", directory: Path | None = None) -> None:
        self.name = name

    def __len__(self) -> int:
        return 12

    def __getitem__(self, i: int) -> Sample:
        rng = np.random.default_rng([7, i])
        size = (40 + i, 48)
        picture = rng.integers(0, 90, (*size, 3), dtype=np.uint8)
        turns = [Turn("bread")]
        for n, name in enumerate(("kettle", "cup", "knife")):
            mask, around = np.zeros(size, dtype=bool), np.zeros(size, dtype=bool)
            top, left = rng.integers(4, 20), 2 + 15 * n
            mask[top : top + 12, left : left + 10] = True
            around[top - 3 : top + 15, left - 2 : left + 12] = True
            picture[mask] = np.eye(3, dtype=np.uint8)[n] * 200
            turns.append(Turn(name, targets=(Target(encode(mask), encode(around)),)))
        return Sample(Image.fromarray(picture), size, tuple(Conversation((turn,)) for turn in turns))


def write_bases(folder: Path) -> Path:
    """The tiny model's LLaVA and SAM as folders in transformers' format."""
    model = tiny_model()
    model.mllm.save_pretrained(folder / "mllm")
    tiny_tokenizer().save_pretrained(folder / "mllm")
    model.segmenter.save_pretrained(folder / "segmenter")
    return folder


def tiny_recipe(folder: Path, **settings: Any) -> Recipe:
    """The recipe on bases in `folder/bases`; settings as section__key=value."""
    bases = folder / "bases"
    if not bases.exists():
        write_bases(bases)
    file = folder / "tiny.yaml"
    file.write_text(RECIPE.format(bases=bases))
    return load_recipe(file, [f"{key.replace('__', '.')}={value}" for key, value in settings.items()])
