"""The tracker of SAM 3 (Carion et al. 2025), which is promptable as SAM 2 is, on single pictures."""

import re
from typing import ClassVar

from transformers import Sam3TrackerConfig, Sam3TrackerModel
from transformers.models.sam3_tracker.modeling_sam3_tracker import Sam3TrackerMaskDecoder

from cores.modeling.segmenters.sam2 import LEVELS, LeanPyramidDecoder, PyramidSegmenter


class LeanSam3TrackerMaskDecoder(LeanPyramidDecoder, Sam3TrackerMaskDecoder):
    """The tracker's."""


class Sam3TrackerSegmenter(PyramidSegmenter, Sam3TrackerModel):
    """A transformers SAM 3 tracker with the same weights under the same names.

    Of four levels of its pyramid the three finest are used, and `no_memory_embedding` is added to the third, as in the
    published program and transformers' video model. (transformers' image model adds it to the level that it drops.)
    """

    config: Sam3TrackerConfig
    decoder = LeanSam3TrackerMaskDecoder
    never_trained: ClassVar[re.Pattern[str]] = re.compile(
        PyramidSegmenter.never_trained.pattern + rf"|neck\.fpn_layers\.[{LEVELS}-9]"
    )
