"""Who may import whom (docs/architecture.md), read off the source; each module can be the first to be imported."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "cores"
LEAVES = {
    "errors",
    "masks",
    "outlines",
    "geometry",
    "segmenter_families",
    "picture_errors",
    "regular_files",
    "checkpoint_errors",
    "hub",
    "cache",
    "viz",
    "fonts",
    "vocabulary",
    "whole",
    "typed_yaml",
    "recipe",
    "recipe_files",
    "recipe_listing",
    "plain_json",
    "process_memory",
    "loss_keys",
    "trainer_section",
    "__init__",
}
# A room may import itself, leaves, and these.
MAY = {
    "modeling": set(),
    "prompts": set(),
    "data": set(),
    "processing": {"prompts", "data.sample"},
    "asking": {"modeling", "processing", "prompts", "data.sample"},
    "checkpoints": {"modeling", "processing", "asking"},
    "scenes": {"data.sample"},
    "training": {"modeling", "prompts", "data", "processing", "asking", "checkpoints", "scenes"},
    "evaluation": {"modeling", "prompts", "data", "processing", "asking", "checkpoints", "scenes"},
    "inference": {"modeling", "prompts", "data", "processing", "asking", "checkpoints", "scenes", "words"},
    "words": {"modeling", "processing", "asking", "checkpoints", "data.sample"},
    "serving": {"inference", "asking", "processing", "scenes", "data.sample", "data.formats"},
    "bulk": {"data", "processing", "checkpoints", "inference"},
}
# Leaves that build on other leaves.
LEAVES_MAY = {
    "recipe": {"typed_yaml", "loss_keys", "trainer_section", "prompts", "recipe_files"},
    "recipe_files": {"typed_yaml"},
    "recipe_listing": {"recipe", "recipe_files", "loss_keys", "trainer_section", "prompts"},
    "trainer_section": {"typed_yaml"},
    "viz": {"masks", "fonts"},
    "outlines": {"masks"},
    "segmenter_families": {"geometry"},
    "picture_errors": {"regular_files"},
}
EXCEPTIONS = {
    "scenes/pretrain": {"modeling", "processing", "training", "prompts", "checkpoints", "words"},
    "processing/__init__": {"modeling.configuration"},  # AutoProcessor finds a processor by its model's config
    "data/sources": {"prompts.forms"},  # a text of a user's own is asked and trained by one rule
    "modeling/configuration": {"prompts.styles"},  # what a style is has one owner
    "prompts": {"data.sample"},  # the types of a turn, which says how it is put into words
    "checkpoints": {"prompts"},  # a converted model gets the settings of the program that trained it
}
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """The modules of cores that a file imports, anywhere in it, without the leading `cores.`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{path}: relative import: say the whole name"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name.removeprefix("cores.") for name in found if name.startswith("cores.")}


def allowed(module: Path, name: str) -> bool:
    room = module.parts[0].removesuffix(".py")
    if room in ("cli", "__main__", "__init__"):
        return True
    top = name.partition(".")[0]
    if top == room or name == "__version__":
        return True
    if room in LEAVES:
        return top == "errors" or top in LEAVES_MAY.get(room, set())
    more = [names for where, names in EXCEPTIONS.items() if module.as_posix().startswith(where)]
    rules = MAY[room].union(LEAVES, *more)
    return any(name == rule or name.startswith(f"{rule}.") for rule in rules)


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_rooms_import_only_what_stands_below_them(module):
    wrong = sorted(name for name in imported(PACKAGE / module) if not allowed(module, name))
    assert not wrong, f"{module} may not import {', '.join(wrong)}"


def test_the_rules_see_what_they_should():
    assert not allowed(Path("modeling/model.py"), "processing.processor")
    assert not allowed(Path("training/run.py"), "evaluation.evaluator")
    assert not allowed(Path("scenes/scene.py"), "modeling.model")
    assert not allowed(Path("errors.py"), "masks")
    assert not allowed(Path("asking/asker.py"), "checkpoints.load")
    assert allowed(Path("scenes/pretrain/mllm.py"), "modeling.packing")
    assert "modeling.model" in imported(PACKAGE / "training" / "trainer.py")


@pytest.mark.slow
def test_each_module_can_be_imported_first():
    """Each in a process of its own, forked from one that has loaded other people's libraries and nothing of ours."""
    names = [".".join(("cores", *module.with_suffix("").parts)).removesuffix(".__init__") for module in MODULES]
    code = (
        "import importlib, os, sys, peft, accelerate.utils, transformers.trainer\n"
        "from transformers import LlavaForConditionalGeneration, LlamaForCausalLM, SamModel, CLIPVisionModel\n"
        "for name in sys.argv[1:]:\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        try:\n"
        "            importlib.import_module(name)\n"
        "        except SystemExit:\n"  # python -m cores
        "            pass\n"
        "        except BaseException as error:\n"
        "            print(f'{name}: {error!r}', flush=True)\n"
        "        os._exit(0)\n"
        "    os.waitpid(child, 0)\n"
    )
    names = [name for name in names if name != "cores.__main__"]
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, check=True)
    assert done.stdout == ""
