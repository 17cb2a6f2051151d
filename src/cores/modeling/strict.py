"""Nothing is loaded partly: what is missing, left over, of another shape or not finite is named, all at once."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from cores.errors import CheckpointError

Shape = Iterable[int]
MOST = 20  # names of tensors that are broken
# positions and frequencies, which older libraries stored, and what a batch norm counts
NO_WEIGHTS = ("position_ids", "inv_freq", "num_batches_tracked")


def refuse(
    where: object,
    missing: Iterable[str] = (),
    unexpected: Iterable[str] = (),
    mismatched: Iterable[tuple[str, Shape, Shape]] = (),
    unusable: Sequence[str] = (),
) -> None:
    """Raise CheckpointError when a list is not empty.

    Args: `mismatched`: (name, shape found, shape expected); `unusable`: lines that say why, as `faults` gives them.
    """
    wrong = [f"missing: {name}" for name in sorted(missing)]
    wrong += [f"unexpected: {name}" for name in sorted(unexpected)]
    wrong += [
        f"wrong shape: {name} is {tuple(found)}, the config says {tuple(expected)}"
        for name, found, expected in sorted(mismatched, key=lambda line: line[0])
    ]
    if wrong:
        raise CheckpointError(
            f"{where}: the weights do not fit the config, nothing was loaded. Take the config that they were saved "
            "with, or the weights that were saved with it:\n  " + "\n  ".join([*wrong, *unusable])
        )
    if unusable := sorted(unusable):
        more = [f"and {len(unusable) - MOST} more"] if len(unusable) > MOST else []
        raise CheckpointError(
            f"{where}: the weights cannot be used, nothing was kept of them. Take those of before they broke, or get "
            "them again:\n  " + "\n  ".join([*unusable[:MOST], *more])
        )


def refuse_differences(where: object, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """`refuse`, for two sets of tensors by name."""
    both = expected.keys() & found.keys()
    shapes = [(key, found[key].shape, expected[key].shape) for key in both if found[key].shape != expected[key].shape]
    refuse(where, expected.keys() - found.keys(), found.keys() - expected.keys(), shapes)


def refuse_broken(where: object, tensors: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError that names every tensor which `fault` finds something wrong with."""
    refuse(where, unusable=[f"{name}: {wrong}" for name, value in tensors.items() if (wrong := fault(value, name))])


def fault(value: Tensor, name: str = "") -> str | None:
    """Why a tensor can be no weight: it is of whole numbers, or holds some that are not finite. None when it can."""
    if name.endswith(NO_WEIGHTS):
        return None
    if not value.is_floating_point():
        return wrong_type(value.dtype)
    if value.is_meta or not value.numel():
        return None
    # a sum reads the tensor once and makes no copy; only where it is not finite are the numbers looked at one by one
    wide = torch.promote_types(value.dtype, torch.float32)
    if bool(torch.isfinite(value.detach().sum(dtype=wide))):
        return None
    count = int((~torch.isfinite(value)).sum())
    what = "NaN" if bool(torch.isnan(value).any()) else "infinite numbers"
    return f"holds {what} ({count} of {value.numel()} numbers are not finite)" if count else None


def wrong_type(dtype: torch.dtype) -> str | None:
    """Why a tensor of this type can be no weight."""
    if dtype.is_floating_point:
        return None
    return f"is of {str(dtype).removeprefix('torch.')}, expected floating-point numbers"
