"""How sure an answer is: of each mask, and that what was asked for is not there; fitted to a checkpoint or not.

Three signals tell of a mask: the decoder's own guess of its IoU, the probability of the chain's grounding tokens, and
the mean probability of the mask's pixels. One tells of an absence: how much likelier a refusal's first words are. Each
is a number from 0 to 1, and none of them means what it says. A logistic regression makes a confidence of them that
does: of masks with a confidence of 0.8, the IoU is 0.8 on average, on data like that which it was fitted to. Without a
fit a mask's confidence is the product of its signals, and the refusal's is its signal.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cores.errors import CheckpointError
from cores.whole import whole_file

FILE = "confidence.json"
SIGNALS = ("predicted_iou", "tokens", "pixels")  # of a mask
NEAR = 1e-4  # signals nearer to 0 or 1 count as that near: their logits would say no more
RIDGE = 1e-3  # holds weights that nothing else holds
STEPS = 50  # of Newton's method, of which a fit takes about ten


@dataclass(frozen=True, slots=True)
class Fit:
    """A logistic regression. `weights`: of each signal's logit, in order; `bias`: added to their sum."""

    weights: tuple[float, ...]
    bias: float

    def __call__(self, signals: Sequence[float]) -> float:
        """A probability, of signals from 0 to 1."""
        total = self.bias + float(np.dot(self.weights, _logits(np.array([signals], dtype=np.float64))[0]))
        return float(1 / (1 + np.exp(-total)))

    @classmethod
    def of(cls, signals: NDArray[np.float64], truth: NDArray[np.float64]) -> "Fit":
        """The likeliest for `signals` (answers, signals) and `truth` (answers,), both from 0 to 1."""
        inputs = np.c_[_logits(signals), np.ones(len(signals))]
        found = np.zeros(inputs.shape[1])
        for _ in range(STEPS):
            said = 1 / (1 + np.exp(-np.clip(inputs @ found, -30, 30)))
            slope = inputs.T @ (truth - said) - RIDGE * found
            bend = (inputs * (said * (1 - said))[:, None]).T @ inputs + RIDGE * np.eye(len(found))
            step = np.linalg.solve(bend, slope)
            found = found + np.clip(step, -2, 2)
            if np.abs(step).max() < 1e-9:
                break
        return cls(tuple(float(one) for one in found[:-1]), float(found[-1]))


def _logits(signals: NDArray[np.float64]) -> NDArray[np.float64]:
    near = np.clip(signals, NEAR, 1 - NEAR)
    logits: NDArray[np.float64] = np.log(near / (1 - near))
    return logits


@dataclass(frozen=True, slots=True)
class Confidence:
    """A checkpoint's own. `mask`, `refusal`: the fits, None where there is none; `about`: what they were fitted to."""

    mask: Fit | None = None
    refusal: Fit | None = None
    about: str = ""

    def of_mask(self, signals: Sequence[float]) -> float:
        """That of a mask with these `SIGNALS`: the IoU to be expected; of an empty mask, whose pixels are 0, 0."""
        if signals[-1] == 0:
            return 0.0
        return float(np.prod(np.clip(signals, 0, 1))) if self.mask is None else self.mask(signals)

    def of_refusal(self, signal: float) -> float:
        """The probability that what was asked for is not there."""
        return signal if self.refusal is None else self.refusal([signal])

    def save(self, folder: Path) -> None:
        """Write `confidence.json` into a model's folder."""
        with whole_file(folder / FILE) as part:
            part.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Confidence":
        """Of a model's folder; without a fit where it has none. Raises CheckpointError for a file that is no such."""
        file = folder / FILE
        if not file.is_file():
            return cls()
        try:
            stored = json.loads(file.read_text("utf-8"))
            sizes = {"mask": len(SIGNALS), "refusal": 1}
            fits = {name: _read(stored[name], size) for name, size in sizes.items()}
            return cls(**fits, about=str(stored.get("about", "")))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(f"{file}: cannot be read as a model's confidence: {error!r:.100}") from None


def _read(stored: dict[str, object] | None, signals: int) -> Fit | None:
    if stored is None:
        return None
    fit = Fit(tuple(float(one) for one in stored["weights"]), float(stored["bias"]))  # type: ignore[attr-defined, arg-type]
    if len(fit.weights) != signals or not np.isfinite([*fit.weights, fit.bias]).all():
        raise ValueError(f"found weights {fit.weights}, bias {fit.bias}, expected {signals} numbers and one")
    return fit


def calibration_error(pairs: Sequence[tuple[float, float]], groups: int = 10) -> float:
    """Expected calibration error of confidences, each with its truth: the mean distance of the two, over groups of
    equal size by confidence; nan of nothing."""
    ordered = np.array(sorted(pairs, key=lambda pair: pair[0]), dtype=np.float64).reshape(-1, 2)
    if not len(ordered):
        return float("nan")
    parts = [part for part in np.array_split(ordered, groups) if len(part)]
    return float(sum(len(part) * abs(part[:, 0].mean() - part[:, 1].mean()) for part in parts) / len(ordered))
