"""A step never asks the device for a value: it runs where there are none to be had.

The meta device stands for a GPU. Whatever would wait for one raises there (`.item()`, `nonzero`, indexing by
booleans), and an operation on tensors of both devices would copy one of them, and wait for that (`tests/test_cuda.py`
has the same on a GPU).
"""

from typing import Any

import pytest
import torch
from test_cuda import QUESTIONS, given, training_model
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class OneDevice(TorchDispatchMode):
    """Inside, no operation takes or makes tensors of the CPU, but for numbers, which a kernel takes as they are."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        tensors = [one for one in tree_leaves((args, kwargs, found)) if isinstance(one, torch.Tensor)]
        copies = "where" in str(func)  # which copies numbers, too
        elsewhere = [one for one in tensors if one.device.type == "cpu" and (one.ndim or copies)]
        assert not elsewhere, f"{func}: a tensor of the CPU among {[one.device.type for one in tensors]}"
        return found


class NoListAsIndex(TorchFunctionMode):
    """Inside, no tensor is indexed with a list of numbers, of which a tensor is made on the CPU and copied."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            assert not any(isinstance(one, list | tuple) for one in index), f"a list as an index: {index}"
        return func(*args, **(kwargs or {}))


def on_meta(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to("meta")
    return [on_meta(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("kind", QUESTIONS)
@pytest.mark.parametrize("how", ["the paper's parts", "every part", "low resolution", "checkpointed"])
def test_nothing_is_asked_of_the_device(kind: str, how: str) -> None:
    model = training_model(how).to("meta")
    asked = {name: on_meta(value) for name, value in given(kind).items()}
    with OneDevice(), NoListAsIndex():
        model(**asked).loss.backward()


def test_what_waits_is_seen() -> None:
    index, values = torch.tensor([1]), torch.zeros(3, device="meta")
    with OneDevice(), NoListAsIndex():
        with pytest.raises(AssertionError, match="a tensor of the CPU"):
            values[index]
        with pytest.raises(AssertionError, match="a list as an index"):
            values[[0, 2]]
        with pytest.raises(RuntimeError):
            values.nonzero()
        with pytest.raises(RuntimeError):
            values.sum().item()
