"""`cores check`: what a folder is; every way in which its parts may not fit each other; rows that never trained."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_config, tiny_model
from tiny_run import Squares, tiny_recipe
from tiny_tokenizer import tiny_processor

from cores.checkpoints.checking import check_static, untrained_rows
from cores.checkpoints.load import load
from cores.checkpoints.probe import refuse_silent
from cores.checkpoints.save import save
from cores.checkpoints.tensors.digests import write_digests
from cores.cli import main
from cores.errors import CheckpointError
from cores.training.run import train


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(tiny_model(tiny_config()), tiny_processor(), tmp_path / "model")


def test_a_good_folder_is_described_and_asked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(folder), "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    for line in (
        "2: location [LOC] (id 90) -> target [SEG] (id 91)",
        "token refiner:   paper",
        "prompt:          plain, exemplars none, pictures padded",
        "sees 32 px as 16 tokens",
        "100% float32",
        "fingerprint:     sha256:",
        "asked for 'disc': ",
        "weights:         every tensor as it was saved",
        "given answers:   cover location ",
        f"{folder}: can be used",
    ):
        assert line in said


def rewrite(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    stored = json.loads(file.read_text())
    change(stored)
    file.write_text(json.dumps(stored))


def resize(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")


def set_level(stored: dict[str, Any], **fields: Any) -> None:
    stored["levels"][1] |= fields


BREAKS: dict[str, Callable[[Path], Any]] = {
    "missing: projection.2.bias": lambda f: resize(f, lambda s: s.pop("projection.2.bias")),
    "unexpected: more": lambda f: resize(f, lambda s: s.update(more=torch.zeros(2))),
    "wrong shape: projection.2.bias is (9,), the config says (32,)": lambda f: resize(
        f, lambda s: s.update({"projection.2.bias": torch.zeros(9)})
    ),
    "ids of the levels' tokens: config.json says [90, 95], the processor [90, 91]": lambda f: rewrite(
        f / "config.json", lambda s: set_level(s, token_id=95)
    ),
    "levels: config.json says [('location', '[LOC]'), ('target', '[OTHER]')]": lambda f: rewrite(
        f / "config.json", lambda s: set_level(s, token="[OTHER]")
    ),
    "image_tokens: config.json says 16, the processor 25": lambda f: rewrite(
        f / "processor_config.json", lambda s: s.update(image_tokens=25)
    ),
    "segmenter_image_size: config.json says 64, the processor 1024": lambda f: rewrite(
        f / "processor_config.json", lambda s: s.update(segmenter_image_size=1024)
    ),
    "refiner: found 'other'": lambda f: rewrite(f / "config.json", lambda s: s.update(refiner="other")),
    "model.safetensors: cannot be read": lambda f: (f / "model.safetensors").write_bytes(b"\0" * 99),
    "holds no weights": lambda f: (f / "model.safetensors").unlink(),
    "prompt.json: is missing": lambda f: (f / "prompt.json").unlink(),
    "is a model of type 'llava'": lambda f: rewrite(f / "config.json", lambda s: s.update(model_type="llava")),
    "no token_id for [SEG]": lambda f: rewrite(f / "config.json", lambda s: set_level(s, token_id=None)),
}


@pytest.mark.parametrize("message", BREAKS)
def test_what_does_not_fit_is_named_and_the_exit_code_is_1(
    message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    BREAKS[message](folder)
    assert main(["check", str(folder), "--static"]) == 1
    said = capsys.readouterr().err
    assert message in said
    assert f"{folder}: cannot be used" in said


BROKEN: dict[str, tuple[str, Callable[[dict[str, torch.Tensor]], Any]]] = {
    "NaN everywhere": (
        "mllm.lm_head.weight: holds NaN (3072 of 3072",
        lambda s: s.update({name: torch.full_like(value, float("nan")) for name, value in s.items()}),
    ),
    "one infinity": (
        "projection.2.bias: holds infinite numbers (1 of 32 numbers are not finite)",
        lambda s: s["projection.2.bias"][:1].fill_(float("-inf")),
    ),
    "zeros": (
        "segmenter.mask_decoder.mask_tokens.weight: is zero everywhere",
        lambda s: [value.zero_() for name, value in s.items() if "mask_decoder" in name],
    ),
    "truths": (
        "mllm.lm_head.weight: is of bool, expected floating-point numbers",
        lambda s: s.update({name: value > 0 for name, value in s.items()}),
    ),
    "whole numbers": (
        "projection.2.weight: is of int8, expected floating-point numbers",
        lambda s: s.update({"projection.2.weight": s["projection.2.weight"].to(torch.int8)}),
    ),
    "a swapped head": (
        "mllm.lm_head.weight: is not what was saved",
        lambda s: s.update(
            {
                "mllm.lm_head.weight": s["mllm.model.language_model.embed_tokens.weight"],
                "mllm.model.language_model.embed_tokens.weight": s["mllm.lm_head.weight"],
            }
        ),
    ),
    "two rows of words that changed places": (
        "mllm.lm_head.weight: is not what was saved",
        lambda s: s.update({"mllm.lm_head.weight": s["mllm.lm_head.weight"][[1, 0, *range(2, 96)]]}),
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_weights_that_broke_are_named_and_the_exit_code_is_1(
    case: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message, change = BROKEN[case]
    resize(folder, change)
    assert main(["check", str(folder), "--device", "cpu"]) == 1
    said = capsys.readouterr()
    assert message in said.err
    assert f"{folder}: cannot be used" in said.err
    assert "can be used" not in said.out


@pytest.mark.parametrize("case", ["NaN everywhere", "one infinity", "truths", "whole numbers"])
def test_what_is_no_number_is_not_loaded(case: str, folder: Path) -> None:
    message, change = BROKEN[case]
    resize(folder, change)
    (folder / "digests.json").unlink()
    with pytest.raises(CheckpointError, match=re.escape(message.partition(" (")[0])):
        load(folder, device="cpu")


def test_a_level_that_gives_no_mask_is_seen() -> None:
    levels = list(torch.randn(2, 3, 8, 8))  # (levels, masks, h, w)
    refuse_silent("model", ["location", "target"], levels)
    levels[1][2] = -4.0
    with pytest.raises(CheckpointError, match="the target mask of a given answer is the same everywhere"):
        refuse_silent("model", ["location", "target"], levels)
    levels[0][1, 2, 3] = float("nan")
    with pytest.raises(CheckpointError, match="the location mask of a given answer is NaN"):
        refuse_silent("model", ["location", "target"], levels)


def test_words_that_changed_places_are_seen(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two words that no stored text holds."""
    file = folder / "tokenizer.json"
    stored = json.loads(file.read_text())
    words = stored["model"]["vocab"]
    words["cut"], words["bread"] = words["bread"], words["cut"]
    file.write_text(json.dumps(stored))
    assert main(["check", str(folder), "--static"]) == 1
    assert "tokenizer.json: its words and their ids are not those" in capsys.readouterr().err


def test_the_model_that_comes_along_is_as_it_was_saved(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--device", "cpu"]) == 0
    assert "every tensor as it was saved" in capsys.readouterr().out


def test_a_folder_that_is_not_there_is_the_users_mistake(tmp_path: Path) -> None:
    assert main(["check", str(tmp_path / "nothing")]) == 2


def test_a_runs_checkpoint_is_held_to_its_base(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tiny_recipe(tmp_path, trainer__max_steps=1), tmp_path / "run", Squares, device="cpu", quiet=True)
    assert main(["check", str(tmp_path / "run"), "--static"]) == 0
    assert f"a run's checkpoint on {tmp_path / 'bases'}" in capsys.readouterr().out
    (checkpoint,) = (tmp_path / "run").glob("checkpoint-*")
    learned = load_file(checkpoint / "trained.safetensors")
    save_file({**learned, "projection.2.bias": torch.zeros(3)}, checkpoint / "trained.safetensors")
    with pytest.raises(CheckpointError, match=r"wrong shape: projection\.2\.bias is \(3,\)"):
        check_static(checkpoint)
    save_file(learned, checkpoint / "trained.safetensors")
    (tmp_path / "bases" / "mllm").rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="expected a folder with mllm/ and segmenter/"):
        check_static(tmp_path / "run")


def test_rows_that_no_training_touched_are_told_from_those_that_it_did() -> None:
    """Rows as wide as LLaMA-7B's: drawn as published, the mean as libraries of today have it, and trained ones."""
    torch.manual_seed(0)
    width = 4096
    table = torch.randn(200, width) * 0.017 + torch.randn(width) * 0.005
    drawn = torch.randn(width) * 0.02
    # a few hundred steps of Adam at 3e-4 move every number by about as much as it was
    table[100] = drawn + 3e-4 * 100 * torch.randn(width).sign() * torch.rand(width)
    table[101] = drawn
    table[103] = 0
    table[104] = table[100]
    table[102] = table.mean(0) + 1e-6 * torch.randn(width)
    found = untrained_rows(table, {"trained": 100, "drawn": 101, "mean": 102, "zero": 103})
    assert set(found) == {"drawn", "mean", "zero"}
    assert "spread as new rows are drawn" in found["drawn"]
    assert "mean of all rows" in found["mean"]
    assert set(untrained_rows(table, {"one": 100, "two": 104})) == {"one", "two"}
    assert all(untrained_rows(table, {"word": n}) == {} for n in range(100))


def test_untrained_rows_are_a_warning_or_with_strict_an_error(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    resize(folder, lambda state: state["mllm.lm_head.weight"][91].zero_())
    write_digests(folder)
    assert main(["check", str(folder), "--device", "cpu"]) == 0
    assert "warning: [SEG]: its row in the head looks untrained" in capsys.readouterr().out
    assert main(["check", str(folder), "--device", "cpu", "--strict"]) == 1
