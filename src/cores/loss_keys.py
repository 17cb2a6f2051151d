"""Every key of a recipe's `losses`: its name there, in a model's config and in the log, and what each style sets.

No torch. A new mask loss is one row below and its function, which is imported when it is used and may stand here,
too; a row without a function is a weight or a switch that is read off the config by its name there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class LossKey:
    """`recipe`, `config`, `log`: its names; no `log`: it has no figure of its own. `default`: by style, or of all.

    `function`: of a mask loss, module:name; it takes logits, truth and ignored pixels or None, (h, w) each, gives a
    scalar. All masks of one size go through it at once (`torch.vmap`), so it looks at no value: pixels are left out by
    a factor, not by an index.
    """

    recipe: str
    config: str
    type: Any
    default: Any
    log: str | None = None
    function: str | None = None

    def value(self, style: str, refiner: str) -> Any:
        """What it is where neither recipe nor config says: the default of `style`.

        With the published form of `refiner` in the published style a mask loss has twice its weight.
        """
        found = self.default[style] if isinstance(self.default, Mapping) else self.default
        double = style == refiner == "published" and self.function is not None
        return 2 * found if double else found  # the published form with a refiner counts both mask losses twice


LOSS_KEYS = (
    LossKey("text", "text_weight", float, {"paper": 0.5, "published": 1.0, "lisa": 1.0}, "text_loss"),
    LossKey("mask", "mask_weight", float, {"paper": 0.5, "published": 1.0, "lisa": 1.0}, "mask_loss"),
    LossKey("bce", "bce_weight", float, 2.0, "bce_loss", "cores.modeling.losses:bce_loss"),
    LossKey("dice", "dice_weight", float, 0.5, "dice_loss", "cores.modeling.losses:dice_loss"),
    LossKey("location", "location_loss", float, 0.0, "location_loss"),
    LossKey("balanced_bce", "balanced_bce", bool, False),
    LossKey("ignore_255", "ignore_255", bool, {"paper": True, "published": False, "lisa": False}),
    LossKey("resolution", "loss_resolution", Literal["original", "low"], "original"),
    LossKey(
        "loss_normalization",
        "loss_normalization",
        Literal["batch", "micro"],
        {"paper": "batch", "published": "micro", "lisa": "micro"},
    ),
)
MASK_LOSSES = tuple(key for key in LOSS_KEYS if key.function)
# What a batch counts for its losses, each of which is a mean: supervised tokens, masks, masks of known location; where
# answers are drawn, their tokens and they themselves.
COUNTED = ("tokens", "masks", "locations", "drawn", "answers")


def logged(levels: Sequence[str]) -> list[str]:
    """Names of all losses in the log, for a chain of these levels: of mask losses, the last level's go without it."""
    before = [f"{level}_{key.log}" for level in levels[:-1] for key in MASK_LOSSES]
    return [key.log for key in LOSS_KEYS if key.log] + before
