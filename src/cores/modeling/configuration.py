"""What a CoReS model is made of: a multimodal LLM, a segmenter, the levels of the chain, and how it was trained."""

from typing import Any, ClassVar, get_args

from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from cores.errors import CheckpointError
from cores.loss_keys import LOSS_KEYS
from cores.prompts.styles import STYLE_NAMES
from cores.vocabulary import LEVEL_NAMES, SEGMENTING, TOKENS

REFINERS = ("none", "paper", "published", "region")


class CoresConfig(PreTrainedConfig):
    """Configuration of `CoresModel`.

    `mllm_config`: of a LLaVA; its extra field `projector` is `linear` or `mlp2x_gelu`. `segmenter_config`: of a family
    in `SEGMENTERS`. `levels`: coarse to fine, each {"name", "token", "token_id"}; one level is LISA, two are CoReS,
    three the paper's ablation. `segmenting`: see `vocabulary.SEGMENTING`. `refiner`: none | paper | published | region
    (where no mask guides another, none; with one level it is left out). `style`: paper |
    published | lisa, sets what is not said of the losses. Those are in `LOSS_KEYS`: the weights `text_weight`,
    `mask_weight`, `bce_weight`, `dice_weight`; `location_loss`, the weight of the mask losses on all levels before
    the last; `balanced_bce`: inside and outside of a mask weigh the same, for training from scratch; `ignore_255`:
    ignored pixels are left out, else they train as background; `loss_resolution`: `original`, or `low` for cheap
    training at the mask decoder's own resolution; `loss_normalization`: `batch`, or `micro` for the published rule.

    Raises CheckpointError when levels, refiner, style or resolution are none of these.
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
    segmenting: str = "chain"
    style: str = "paper"

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
            ("segmenting", tuple(SEGMENTING)),
        ):
            if getattr(self, field) not in allowed:
                wrong.append(f"{field}: found {getattr(self, field)!r}, expected one of {', '.join(allowed)}")
        if self.segmenting != "chain" and (self.segmenting == "twice") != (len(names) == 1):
            wrong.append(
                f"segmenting: found {self.segmenting} and {len(names)} levels; twice is for one, apart for more"
            )
        if self.segmenting == "apart" and self.refiner != "none":
            wrong.append(
                f"refiner: found {self.refiner}, but where masks are made apart there is nothing to refine by"
            )
        if wrong:
            raise CheckpointError("the model's config cannot be used. " + "; ".join(wrong))
        for key in LOSS_KEYS:
            if getattr(self, key.config, None) is None:
                setattr(self, key.config, key.value(self.style, self.refiner))
            allowed = get_args(key.type)
            if allowed and getattr(self, key.config) not in allowed:
                expected = f"{key.config}: found {getattr(self, key.config)!r}, expected {' or '.join(allowed)}"
                raise CheckpointError(f"the model's config cannot be used. {expected}")

    @property
    def is_guided(self) -> bool:
        """Does a mask guide another?"""
        assert self.levels is not None
        return self.segmenting == "twice" or (self.segmenting == "chain" and len(self.levels) > 1)

    @property
    def token_ids(self) -> list[int]:
        """Ids of the grounding tokens, coarse to fine. Raises CheckpointError when one is not known."""
        assert self.levels is not None
        missing = [level["token"] for level in self.levels if level.get("token_id") is None]
        if missing:
            raise CheckpointError(f"config.levels: no token_id for {', '.join(missing)}; look it up in the tokenizer")
        return [int(level["token_id"]) for level in self.levels]
