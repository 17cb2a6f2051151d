"""CoReS: reasoning segmentation with chains of reasoning and segmenting (arXiv 2404.05673)."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0.dev0"

# Public name -> the module that has it, imported when the name is first used: `import cores` loads no torch.
_NAMES = {
    "load": "cores.inference.facade",
    "Cores": "cores.inference.facade",
    "Segmentation": "cores.inference.segmentation",
    "CoresConfig": "cores.modeling.configuration",
    "CoresModel": "cores.modeling.model",
    "CoresProcessor": "cores.processing.processor",
    "evaluate": "cores.evaluation.evaluator",
    "Sample": "cores.data.sample",
    "Conversation": "cores.data.sample",
    "Turn": "cores.data.sample",
    "Target": "cores.data.sample",
    "CoresError": "cores.errors",
    "UserError": "cores.errors",
    "DataError": "cores.errors",
    "RecipeError": "cores.errors",
    "CheckpointError": "cores.errors",
    "CheckFailed": "cores.errors",
}
__all__ = ["__version__", *_NAMES]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'cores' has no attribute {name!r}")
    value = getattr(import_module(_NAMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES})
