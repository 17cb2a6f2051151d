"""The public names: few, all there, and none of them loads torch before it is used."""

import subprocess
import sys

import cores

NAMES = {
    "__version__",
    "load",
    "Cores",
    "Segmentation",
    "CoresConfig",
    "CoresModel",
    "CoresProcessor",
    "evaluate",
    "Sample",
    "Conversation",
    "Turn",
    "Target",
    "CoresError",
    "UserError",
    "DataError",
    "RecipeError",
    "CheckpointError",
    "CheckFailed",
}


def test_the_public_names_are_these_and_all_can_be_had() -> None:
    assert set(cores.__all__) == NAMES
    assert len(NAMES) < 20
    for name in NAMES:
        assert getattr(cores, name).__module__.startswith("cores") if name != "__version__" else cores.__version__


def test_importing_cores_loads_no_torch() -> None:
    code = "import sys, cores; cores.UserError; assert 'load' in dir(cores); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
