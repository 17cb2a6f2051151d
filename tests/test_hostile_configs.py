"""Configs, tokenizers and adapters that say nonsense: one CheckpointError each, at once, whatever a library raises."""

import json
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from tiny import tiny_config, tiny_model
from tiny_run import Squares, tiny_recipe
from tiny_tokenizer import tiny_processor

from cores.checkpoints.checking import check_static
from cores.checkpoints.load import load
from cores.checkpoints.save import save
from cores.cli import main
from cores.errors import CheckpointError
from cores.training.run import train

SECONDS = 10  # of a second's work, on a busy machine


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model folder, and a run's checkpoint."""
    folder = tmp_path_factory.mktemp("models")
    train(tiny_recipe(folder, trainer__max_steps=1), folder / "run", Squares, device="cpu", quiet=True)
    (checkpoint,) = (folder / "run").glob("checkpoint-*")
    return {"model": save(tiny_model(tiny_config()), tiny_processor(), folder / "model"), "checkpoint": checkpoint}


def put(path: str, value: Any) -> Callable[[Any], Any]:
    """A change of one field, at a path with dots."""

    def change(stored: Any) -> Any:
        part = stored
        *steps, last = path.split(".")
        for step in steps:
            part = part[int(step) if isinstance(part, list) else step]
        part[int(last) if isinstance(part, list) else last] = value
        return stored

    return change


CONFIGS: dict[str, Callable[[Any], Any]] = {
    "a list": lambda stored: [],
    "null": lambda stored: None,
    "another family": put("mllm_config.model_type", "bert"),
    "no family": put("segmenter_config", 7),
    "another language model": put("mllm_config.text_config.model_type", "clip"),
    "an id in letters": put("levels.1.token_id", "x"),
    "an id beyond all": put("levels.1.token_id", 10**30),
    "levels that are none": put("levels", [1, 2]),
    "no heads": put("mllm_config.text_config.num_attention_heads", 0),
    "no patches": put("mllm_config.vision_config.patch_size", 0),
    "segmenter without patches": put("segmenter_config.vision_config.patch_size", 0),
    "a vocabulary in letters": put("mllm_config.text_config.vocab_size", "x"),
    "a negative width": put("mllm_config.text_config.hidden_size", -32),
    "somebody's attention": put("mllm_config.attn_implementation", "a/b"),
    "somebody's attention, inside": put("_attn_implementation", "a/b"),
    "quantised": put("quantization_config", {"quant_method": "bitsandbytes", "load_in_8bit": True}),
    "a million layers": put("mllm_config.text_config.num_hidden_layers", 10**6),
    "a million layers that look": put("mllm_config.vision_config.num_hidden_layers", 10**6),
    "a million layers that segment": put("segmenter_config.mask_decoder_config.num_hidden_layers", 10**6),
    "a million outputs": put("segmenter_config.mask_decoder_config.num_multimask_outputs", 10**6),
    "a number without end": put("mllm_config.text_config.intermediate_size", 10**400),
    "infinity": put("text_weight", float("inf")),
    "an unknown activation": put("mllm_config.text_config.hidden_act", "nothing"),
    "an unknown type": put("dtype", "float7"),
    "a rope of letters": put("mllm_config.text_config.rope_parameters", "x"),
}
TOKENIZERS: dict[str, Callable[[Any], Any]] = {
    "nothing": lambda stored: {},
    "a list": lambda stored: [],
    "no vocabulary": put("model.vocab", None),
    "an id in letters": put("model.vocab.kettle", "x"),
    "a model of no kind": put("model.type", "Nothing"),
    "a pattern that is none": put(
        "pre_tokenizer", {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated"}
    ),
}
ADAPTERS: dict[str, Callable[[Any], Any]] = {
    "a list": lambda stored: [],
    "a rank in letters": put("r", "x"),
    "a negative rank": put("r", -1),
    "a rank of a million": put("r", 10**6),
    "another method": put("peft_type", "IA3"),
    "targets that are not there": put("target_modules", "nothing"),
    "targets that are no names": put("target_modules", 7),
    "a pattern that is none": put("target_modules", "("),
    "an initialisation that computes": put("init_lora_weights", "loftq"),
    "somebody's core": put("megatron_config", {"a": 1}),
    "layers of another size": put("rank_pattern", {"q_proj": 9}),
    "an alpha of letters": put("lora_alpha", "x"),
}
BASES: dict[str, Callable[[Any], Any]] = {
    "a list": lambda stored: [],
    "paths in a list": put("paths", ["bases"]),
    "a start that is a number": lambda stored: {**stored, "paths": {"start": 3}},
    "fingerprints in a list": put("fingerprints", ["x"]),
    "tokens that are none": put("new_tokens", ["x"]),
    "a seed of letters": put("seed", "x"),
}
PROCESSORS: dict[str, Callable[[Any], Any]] = {
    "a list": lambda stored: [],
    "no sizes": put("image_tokens", None),
    "tests that are none": put("self_test", 3),
    "an id in letters": put("image_token_id", "x"),
    "half an id": put("image_token_id", 1.5),
    "a segmenter in a list": put("segmenter", ["sam"]),
}
PROMPTS: dict[str, Callable[[Any], Any]] = {
    "a list": lambda stored: [],
    "a token that is a number": put("tokens.target", 5),
    "an empty token": put("tokens.target", ""),
    "levels in letters": put("levels", "two"),
    "no answer's form": put("wording.format.answer", None),
    "a first turn that is a number": put("wording.format.first", 5),
    "an answer that never ends": put("wording.format.answer", " {answer}"),
    "no place for a question": put("wording.format.first", "USER:"),
    "no questions to validate": put("wording.validation_questions", {}),
    "no questions of a form": put("wording.questions.phrase", []),
    "an answer that is a number": put("wording.validation_answer", 5),
    "no answers": put("wording.answers", None),
    "refusals that are numbers": put("wording.refusals", [1]),
    "exemplars in one text": put("wording.exemplars", "x"),
}
CASES = [
    (which, file, name, change)
    for which, file, table in (
        ("model", "config.json", {**CONFIGS, "a type in a list": put("model_type", ["llava"])}),
        ("model", "tokenizer.json", TOKENIZERS),
        ("model", "processor_config.json", PROCESSORS),
        ("model", "prompt.json", PROMPTS),
        ("checkpoint", "config.json", CONFIGS),
        ("checkpoint", "adapter_config.json", ADAPTERS),
        ("checkpoint", "base.json", BASES),
    )
    for name, change in table.items()
]


def copy_of(folder: Path, place: Path) -> Path:
    shutil.copytree(folder, place, dirs_exist_ok=True)
    return place


def tried(folder: Path, use: Callable[[Path], Any]) -> str | None:
    """What is said of a folder by an error of ours, within a bounded time; None when it is taken."""
    began = time.monotonic()
    try:
        use(folder)
        said = None
    except CheckpointError as error:
        said = str(error)
    assert time.monotonic() - began < SECONDS
    return said


@pytest.mark.parametrize(("which", "file", "name", "change"), CASES, ids=[f"{w} {f} {n}" for w, f, n, _ in CASES])
def test_nonsense_is_one_error_that_names_the_file(
    which: str, file: str, name: str, change: Callable[[Any], Any], models: dict[str, Path], tmp_path: Path
) -> None:
    folder = copy_of(models[which], tmp_path / "m")
    stored = change(json.loads((folder / file).read_text()))
    (folder / file).write_text(json.dumps(stored))
    for use in (check_static, lambda folder: load(folder, device="cpu")):
        said = tried(folder, use)
        assert said is not None
        assert str(folder) in said or "the mllm: the weights do not fit the config" in said


def test_deep_nesting_is_one_error(models: dict[str, Path], tmp_path: Path) -> None:
    for file in ("config.json", "processor_config.json", "tokenizer.json"):
        folder = copy_of(models["model"], tmp_path / file)
        (folder / file).write_text("[" * 100_000)
        assert tried(folder, check_static) is not None


def test_what_is_no_file_is_not_waited_for(models: dict[str, Path], tmp_path: Path) -> None:
    import os

    folder = copy_of(models["model"], tmp_path / "m")
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    assert "is no regular file" in (tried(folder, check_static) or "")
    folder = copy_of(models["model"], tmp_path / "weights")
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")
    assert "holds no weights" in (tried(folder, check_static) or "")


def test_of_two_sets_of_weights_the_one_that_is_loaded_is_checked(
    models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy_of(models["model"], tmp_path / "m")
    state = load_file(folder / "model.safetensors")
    save_file(state, folder / "model-00001-of-00001.safetensors", {"format": "pt"})
    places = {"metadata": {}, "weight_map": dict.fromkeys(state, "model-00001-of-00001.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(places))
    assert tried(folder, check_static) is None
    stale = {**state, "projection.2.bias": state["projection.2.bias"] + 1}
    save_file(stale, folder / "model.safetensors", {"format": "pt"})
    assert main(["check", str(folder), "--device", "cpu"]) == 1
    assert "projection.2.bias: is not what was saved" in capsys.readouterr().err
    (folder / "model.safetensors").unlink()
    assert tried(folder, check_static) is None
    (folder / "model.safetensors.index.json").write_text("[" * 100_000)
    assert "cannot be read as an index" in (tried(folder, check_static) or "")


def test_the_command_says_it_in_one_line_and_exits_with_1(
    models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy_of(models["model"], tmp_path / "m")
    stored = put("mllm_config.text_config.num_hidden_layers", 10**6)(json.loads((folder / "config.json").read_text()))
    (folder / "config.json").write_text(json.dumps(stored))
    assert main(["check", str(folder), "--static"]) == 1
    error = capsys.readouterr().err
    assert "mllm_config.text_config.num_hidden_layers: found 1000000, but the files hold" in error
    assert "Traceback" not in error


STRANGE: list[Any] = [
    None, True, "", "x", "a/b", [], {}, [1], {"a": 1}, 0, -1, 1, 3, 10**6, 2**40, 10**30, 0.5, float("nan"), 1e300,
    "../x", "null", [[]], "\ud800", ["x"],
]  # fmt: skip


def places(stored: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every field at any depth."""
    items = stored.items() if isinstance(stored, dict) else enumerate(stored) if isinstance(stored, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("which", "file"),
    [("model", "config.json"), ("model", "tokenizer.json"), ("model", "processor_config.json"),
     ("checkpoint", "adapter_config.json"), ("checkpoint", "base.json"), ("checkpoint", "config.json")],
)  # fmt: skip
@pytest.mark.parametrize("seed", range(2))
def test_whatever_a_field_says_there_is_a_model_or_one_error(
    which: str, file: str, seed: int, models: dict[str, Path], tmp_path: Path
) -> None:
    rng = random.Random(f"{file} {seed}")
    folder = copy_of(models[which], tmp_path / "m")
    whole = (folder / file).read_text()
    spots = list(places(json.loads(whole)))
    for _ in range(120):
        stored = json.loads(whole)
        for spot in rng.sample(spots, rng.choice((1, 1, 1, 3))):
            part = stored
            try:
                for step in spot[:-1]:
                    part = part[step]
                if rng.random() < 0.15:
                    del part[spot[-1]]
                else:
                    part[spot[-1]] = rng.choice(STRANGE)
            except (KeyError, IndexError, TypeError):
                continue  # an earlier change took the place away
        (folder / file).write_text(json.dumps(stored), encoding="utf-8", errors="surrogatepass")
        if tried(folder, check_static) is None:
            tried(folder, lambda folder: load(folder, device="cpu"))
