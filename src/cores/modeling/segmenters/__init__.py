"""Promptable segmenters, one adapter a family. A new one is a file beside this and a row in `SEGMENTERS`."""

from importlib import import_module
from typing import Any

from cores.errors import CheckpointError

# model_type of a segmenter's config -> its class, imported when asked for
SEGMENTERS = {
    "sam": "cores.modeling.segmenters.sam:SamSegmenter",
    "sam_hq": "cores.modeling.segmenters.sam_hq:SamHQSegmenter",
    "sam2": "cores.modeling.segmenters.sam2:Sam2Segmenter",
    "sam3_tracker": "cores.modeling.segmenters.sam3_tracker:Sam3TrackerSegmenter",
    "edgetam": "cores.modeling.segmenters.edgetam:EdgeTamSegmenter",
}


# configs of whole video models -> the family of the part of them that segments single pictures
VIDEO = {
    "sam2_video": "sam2",
    "sam3_tracker_video": "sam3_tracker",
    "sam3_video": "sam3_tracker",
    "edgetam_video": "edgetam",
}


def segmenter_class(model_type: str) -> Any:
    """The adapter of a family. Raises CheckpointError for one that has none."""
    if model_type not in SEGMENTERS:
        known = ", ".join(SEGMENTERS)
        raise CheckpointError(f"segmenter_config: found a {model_type!s:.80}, expected the config of one of {known}")
    module, _, name = SEGMENTERS[model_type].partition(":")
    return getattr(import_module(module), name)


def make_segmenter(config: Any) -> Any:
    """A segmenter of this config, with new weights. Raises CheckpointError for a family that has no adapter."""
    return segmenter_class(config.model_type)(config)
