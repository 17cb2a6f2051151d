"""EdgeTAM (Zhou et al. 2025): SAM 2's decoder behind a small convolutional image encoder, on single pictures."""

import re
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Self

from transformers import EdgeTamConfig, EdgeTamModel
from transformers.models.edgetam.modeling_edgetam import EdgeTamMaskDecoder

from cores.errors import CheckpointError
from cores.modeling.segmenters.sam2 import LeanPyramidDecoder, PyramidSegmenter

TRUNK = {"in_chans", "features_only", "out_indices"}  # what a config may say of the image encoder's trunk


class LeanEdgeTamMaskDecoder(LeanPyramidDecoder, EdgeTamMaskDecoder):
    """EdgeTAM's."""


class EdgeTamSegmenter(PyramidSegmenter, EdgeTamModel):
    """A transformers EdgeTAM with the same weights under the same names. The trunk of its image encoder is timm's."""

    config: EdgeTamConfig
    decoder = LeanEdgeTamMaskDecoder

    def train(self, mode: bool = True) -> Self:
        """As of any module, but for the trunk's batch norms: they keep their means, a few pictures would ruin them."""
        super().train(mode)
        self.vision_encoder.train(False)
        return self

    @classmethod
    def check(cls, stored: Mapping[str, Any]) -> None:
        """Raise CheckpointError when timm or torchvision is not installed, and for a trunk that timm would fetch."""
        vision = stored.get("vision_config")
        trunk = vision.get("backbone_config") if isinstance(vision, Mapping) else None
        check_trunk(trunk if isinstance(trunk, Mapping) else {})


def check_trunk(trunk: Mapping[str, Any]) -> None:
    """Raise CheckpointError unless a trunk can be made here, from what its config says alone."""
    if trunk.get("model_type", "timm_wrapper") != "timm_wrapper":
        return
    missing = [name for name in ("timm", "torchvision") if find_spec(name) is None]
    if missing:
        raise CheckpointError(
            f"EdgeTAM's image encoder needs {' and '.join(missing)}: pip install 'cores[edgetam]' (or take SAM 2)"
        )
    name, said = trunk.get("architecture"), set(trunk.get("model_args") or ()) - TRUNK
    if said or not (isinstance(name, str) and re.fullmatch(r"[\w.]+", name)):
        what = f"model_args {', '.join(sorted(map(str, said)))}" if said else f"architecture {name!r:.80}"
        raise CheckpointError(
            f"EdgeTAM's backbone_config: found {what}, expected the name of a trunk such as repvit_m1"
        )
