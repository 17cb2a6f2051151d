"""Families of promptable segmenters: one row each. A new one is a row here, and its adapter in `modeling/segmenters/`.

The pixel rules are those of the families' published programs.
"""

from dataclasses import dataclass

from cores.geometry import Fit

Colour = tuple[float, float, float]
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # ImageNet's, of grey values 0 to 255
HALF = (127.5, 127.5, 127.5)


@dataclass(frozen=True, slots=True)
class SegmenterFamily:
    """A row. `adapter`: its class, as module:name; `fit`: how a picture is put into the square that it looks at;
    `mean`, `std`: of grey values 0 to 255; `rounded`: the resized picture is one of 8 bits, as its file is."""

    adapter: str
    fit: Fit
    mean: Colour = MEAN
    std: Colour = STD
    rounded: bool = True


# by the model_type of the config
SEGMENTERS = {
    "sam": SegmenterFamily("cores.modeling.segmenters.sam:SamSegmenter", "pad"),
    "sam_hq": SegmenterFamily("cores.modeling.segmenters.sam_hq:SamHQSegmenter", "pad"),
    "sam2": SegmenterFamily("cores.modeling.segmenters.sam2:Sam2Segmenter", "squash", rounded=False),
    "sam3_tracker": SegmenterFamily(
        "cores.modeling.segmenters.sam3_tracker:Sam3TrackerSegmenter", "squash", HALF, HALF
    ),
    "edgetam": SegmenterFamily("cores.modeling.segmenters.edgetam:EdgeTamSegmenter", "squash", rounded=False),
}

# configs of whole video models -> the family of the part of them that segments single pictures
VIDEO = {
    "sam2_video": "sam2",
    "sam3_tracker_video": "sam3_tracker",
    "sam3_video": "sam3_tracker",
    "edgetam_video": "edgetam",
}
