"""Promptable segmenters, one adapter a family; the families are rows of `cores.segmenter_families`."""

from importlib import import_module
from typing import Any

from cores.errors import CheckpointError
from cores.segmenter_families import SEGMENTERS


def segmenter_class(model_type: str) -> Any:
    """The adapter of a family. Raises CheckpointError for one that has none."""
    if model_type not in SEGMENTERS:
        known = ", ".join(SEGMENTERS)
        raise CheckpointError(f"segmenter_config: found a {model_type!s:.80}, expected the config of one of {known}")
    module, _, name = SEGMENTERS[model_type].adapter.partition(":")
    return getattr(import_module(module), name)


def make_segmenter(config: Any) -> Any:
    """A segmenter of this config, with new weights. Raises CheckpointError for a family that has no adapter."""
    return segmenter_class(config.model_type)(config)
