"""Files that are handed around beside the project (golden numbers, samples): read when there, else skipped."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


def shared(name: str) -> Path:
    """The path of a shared file or folder. Skips the test, with the reason, when it is not beside the project."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{name} is not in {SHARED.name}/ beside the project")
    return path
