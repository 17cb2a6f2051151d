"""What tensors a model of a config has, told without making one of them."""

import math
from pathlib import Path
from typing import Any

import torch

from cores.checkpoint_errors import checkpoint_errors
from cores.checkpoints.configs import CONFIG
from cores.checkpoints.tensors.lazy import open_shards
from cores.errors import CheckpointError
from cores.modeling.configuration import CoresConfig
from cores.modeling.model import CoresModel
from cores.modeling.segmenters import segmenter_class

SPARE = 2**24  # numbers that a part may have beyond those of its files before it is made at all

# A tensor's second name in a model with a SAM, and its first: positions are used in two places and stored once. In the
# families after it they are two tensors, stored twice.
SECOND_NAMES = {
    "segmenter.prompt_encoder.shared_embedding.positional_embedding": (
        "segmenter.shared_image_embedding.positional_embedding"
    )
}


def second_names(config: CoresConfig) -> dict[str, str]:
    """The second names of a segmenter's tensors in a model of this config, with their first."""
    segmenter: Any = config.segmenter_config
    tied = segmenter_class(segmenter.model_type)._tied_weights_keys or {}
    return {f"segmenter.{second}": f"segmenter.{first}" for second, first in tied.items()}


def refuse_larger(kind: type[Any], config: Any, folder: Path) -> None:
    """Raise CheckpointError when a model of this config has many more numbers than its files hold.

    This is before it is made: transformers would fill what is missing, and a config that says nothing of a text model
    means one of billions. What is missing by name is said when it is loaded.
    """
    file = folder / CONFIG
    with torch.device("meta"), checkpoint_errors(file, "be made a model", "take the config of its own weights"):
        part = kind(config)
        wanted = sum(value.numel() for value in (*part.parameters(), *part.buffers()))
    held = sum(math.prod(entry.shape) for entry in open_shards(folder).values())
    if wanted > 2 * held + SPARE:
        raise CheckpointError(
            f"{file}: a model of it has {wanted:,} numbers, the files hold {held:,}: take the config that they were "
            "saved with"
        )


def shapes_of(config: CoresConfig, where: str | Path = "config.json") -> dict[str, tuple[int, ...]]:
    """The shapes of a model's tensors by name. Raises CheckpointError when no model can be made by the config."""
    with torch.device("meta"), checkpoint_errors(where, "be made a model", "take the config of its own weights"):
        model = CoresModel(config)
        tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
        head = {
            name
            for name, value in model.named_parameters(remove_duplicate=False)
            if value is model.get_output_embeddings().weight
        }
        own = {name for name, _ in model.named_parameters()}
        return {
            name: tuple(value.shape)
            for name, value in model.state_dict().items()
            if not (tied and name in head - own)  # files do not have a tied head
        }
