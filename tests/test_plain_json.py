"""JSON that any reader takes: numbers that are none become null, at any depth."""

import json

import pytest

from cores.plain_json import dumps


def test_what_is_no_number_is_null() -> None:
    value = {"a": float("nan"), "b": [1.5, float("inf"), {"c": (float("-inf"), "NaN", None, True)}]}
    assert json.loads(dumps(value)) == {"a": None, "b": [1.5, None, {"c": [None, "NaN", None, True]}]}
    with pytest.raises(ValueError, match="JSON"):
        json.dumps(value, allow_nan=False)
