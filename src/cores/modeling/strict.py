"""Nothing is loaded partly: what a checkpoint lacks, has too much or has in another shape is named, all at once."""

from collections.abc import Iterable, Mapping

from torch import Tensor

from cores.errors import CheckpointError

Shape = Iterable[int]


def refuse(
    where: object, missing: Iterable[str], unexpected: Iterable[str], mismatched: Iterable[tuple[str, Shape, Shape]]
) -> None:
    """Raise CheckpointError when a list is not empty. `mismatched`: (name, shape found, shape expected)."""
    wrong = [f"missing: {name}" for name in sorted(missing)]
    wrong += [f"unexpected: {name}" for name in sorted(unexpected)]
    wrong += [
        f"wrong shape: {name} is {tuple(found)}, the config says {tuple(expected)}"
        for name, found, expected in sorted(mismatched, key=lambda line: line[0])
    ]
    if wrong:
        raise CheckpointError(
            f"{where}: the weights do not fit the config, nothing was loaded. Take the config that they were saved "
            "with, or the weights that were saved with it:\n  " + "\n  ".join(wrong)
        )


def refuse_differences(where: object, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """`refuse`, for two sets of tensors by name."""
    both = expected.keys() & found.keys()
    shapes = [(key, found[key].shape, expected[key].shape) for key in both if found[key].shape != expected[key].shape]
    refuse(where, expected.keys() - found.keys(), found.keys() - expected.keys(), shapes)
