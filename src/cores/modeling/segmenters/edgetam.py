"""EdgeTAM (Zhou et al. 2025): SAM 2's decoder behind a small convolutional image encoder, on single pictures."""

from importlib.util import find_spec

from transformers import EdgeTamConfig, EdgeTamModel

from cores.errors import CheckpointError
from cores.geometry import FITS
from cores.modeling.segmenters.sam2 import PyramidSegmenter

TRUNK = {"in_chans", "features_only", "out_indices"}  # what a config may say of the image encoder's trunk


class EdgeTamSegmenter(PyramidSegmenter, EdgeTamModel):
    """A transformers EdgeTAM with the same weights under the same names. The trunk of its image encoder is timm's.

    Raises CheckpointError when timm or torchvision is not installed, and for a trunk that would be fetched.
    """

    config: EdgeTamConfig
    fit = FITS["edgetam"]

    def __init__(self, config: EdgeTamConfig) -> None:
        check_trunk(config)
        super().__init__(config)


def check_trunk(config: EdgeTamConfig) -> None:
    """Raise CheckpointError unless the trunk can be made here, from the config alone."""
    trunk = config.vision_config.backbone_config
    if trunk.model_type != "timm_wrapper":
        return
    missing = [name for name in ("timm", "torchvision") if find_spec(name) is None]
    if missing:
        raise CheckpointError(
            f"EdgeTAM's image encoder needs {' and '.join(missing)}: pip install 'cores[edgetam]' (or take SAM 2)"
        )
    said = set(trunk.model_args or ()) - TRUNK
    if not str(trunk.architecture).replace("_", "").isalnum() or said:
        what = f"model_args {', '.join(sorted(said))}" if said else f"architecture {trunk.architecture!r:.80}"
        raise CheckpointError(
            f"EdgeTAM's backbone_config: found {what}, expected the name of a trunk such as repvit_m1"
        )
