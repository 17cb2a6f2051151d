"""The published program's training, step by step: losses, norms of gradients and final weights of the stored run."""

import sys
from itertools import islice
from pathlib import Path

import pytest
from shared import shared

from cores.checkpoints.published import convert_config

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import parity
import parity_train

LINES = 3  # of a step


def test_the_first_steps_are_met() -> None:
    for name, difference, tolerance in islice(parity_train.compare_training(shared("golden/train")), 2 * LINES):
        assert difference <= tolerance, name


def test_another_epsilon_of_the_mask_decoder_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """What no comparison of masks shows: with transformers' default the gradients are others."""
    monkeypatch.setattr(convert_config, "SAM_DECODER_EPS", 1e-6)
    lines = islice(parity_train.compare_training(shared("golden/train")), LINES)
    beyond = [name for name, difference, tolerance in lines if not difference <= tolerance]
    assert "step 0: norms of its parts" in beyond


@pytest.mark.slow
def test_all_steps_and_the_final_weights_are_met() -> None:
    assert parity.main([str(shared("golden/train"))]) == 0
