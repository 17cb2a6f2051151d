"""What a CoReS model is made of: a multimodal LLM, a segmenter, the levels of the chain, and how it was trained."""

from typing import Any, ClassVar

from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from cores.errors import CheckpointError
from cores.prompts.styles import STYLE_NAMES, STYLES
from cores.vocabulary import LEVEL_NAMES, TOKENS

REFINERS = ("none", "paper", "published", "region")


class CoresConfig(PreTrainedConfig):
    """Configuration of `CoresModel`.

    `mllm_config`: of a LLaVA; its extra field `projector` is `linear` or `mlp2x_gelu`. `segmenter_config`: of a SAM.
    `levels`: coarse to fine, each {"name", "token", "token_id"}; one level is LISA, two are CoReS, three the paper's
    ablation. `refiner`: none | paper | published | region (one level has none). `style`: paper | published | lisa,
    sets the weights of the losses that are None, and `ignore_255` (whether ignored pixels are left out; else they
    train as background).
    `location_loss`: weight of the mask losses on the first level, too. `balanced_bce`: inside and outside of a
    mask weigh the same, for training from scratch. `loss_resolution`: `original`, or `low` for cheap training at the
    mask decoder's own resolution.

    Raises CheckpointError when levels, refiner or style are none of these.
    """

    model_type = "cores"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {
        "mllm_config": SubConfigSpec(config_class=AutoConfig, model_type="llava"),
        "segmenter_config": SubConfigSpec(config_class=AutoConfig, model_type="sam"),
    }

    mllm_config: dict[str, Any] | PreTrainedConfig | None = None
    segmenter_config: dict[str, Any] | PreTrainedConfig | None = None
    levels: list[dict[str, Any]] | None = None
    refiner: str = "paper"
    style: str = "paper"
    text_weight: float | None = None
    mask_weight: float | None = None
    bce_weight: float | None = None
    dice_weight: float | None = None
    location_loss: float = 0.0
    balanced_bce: bool = False
    loss_resolution: str = "original"
    ignore_255: bool | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.levels is None:
            self.levels = [{"name": name, "token": TOKENS[name], "token_id": None} for name in LEVEL_NAMES[2]]
        wrong = []
        names = tuple(level.get("name") for level in self.levels)
        if names != LEVEL_NAMES.get(len(names)):
            expected = " or ".join(str(list(v)) for v in LEVEL_NAMES.values())
            wrong.append(f"levels: found the names {list(names)}, expected {expected}")
        for field, allowed in (
            ("refiner", REFINERS),
            ("style", STYLE_NAMES),
            ("loss_resolution", ("original", "low")),
        ):
            if getattr(self, field) not in allowed:
                wrong.append(f"{field}: found {getattr(self, field)!r}, expected one of {', '.join(allowed)}")
        if wrong:
            raise CheckpointError("the model's config cannot be used. " + "; ".join(wrong))
        style = STYLES[self.style]
        double = 2.0 if style.refiner_twice and self.refiner == "published" else 1.0
        text, mask, bce, dice = style.losses
        self.text_weight = text if self.text_weight is None else self.text_weight
        self.mask_weight = mask if self.mask_weight is None else self.mask_weight
        self.bce_weight = bce * double if self.bce_weight is None else self.bce_weight
        self.dice_weight = dice * double if self.dice_weight is None else self.dice_weight
        self.ignore_255 = style.ignore_255 if self.ignore_255 is None else self.ignore_255

    @property
    def token_ids(self) -> list[int]:
        """Ids of the grounding tokens, coarse to fine. Raises CheckpointError when one is not known."""
        assert self.levels is not None
        missing = [level["token"] for level in self.levels if level.get("token_id") is None]
        if missing:
            raise CheckpointError(f"config.levels: no token_id for {', '.join(missing)}; look it up in the tokenizer")
        return [int(level["token_id"]) for level in self.levels]
