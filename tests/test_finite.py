"""A loss or gradient that is no number stops the run before the step, and says whose it is."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from split_run import cut_into, cut_run, poison, prepare
from torch import Tensor

from cores.errors import CheckFailed
from cores.modeling import CoresModel
from cores.training import run
from cores.training.trainer import CoresTrainer

SCALE = {"first": 2.0**16}
FEW, ASKED = "trainer.max_steps=3", "data.questions_per_image=1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    prepare(tmp_path)
    return tmp_path


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> list[CoresModel]:
    """The models that runs train, before anything is taken."""
    found: list[CoresModel] = []
    choose = run.choose_parts

    def keep(model: CoresModel, *args: Any) -> None:
        choose(model, *args)
        found.append(model)

    monkeypatch.setattr(run, "choose_parts", keep)
    return found


def named_by(error: pytest.ExceptionInfo[CheckFailed]) -> list[str]:
    """The samples that an error names."""
    found = str(error.value).partition(". The ")[2].partition(". Go on")[0]
    return found.partition(" for: ")[2].split("; ") if " for: " in found else found.partition(": ")[2].split("; ")


PRECISIONS = {
    "fp32": [],
    "bf16": ["trainer.bf16=true", "model.dtype=bfloat16"],
}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_samples_of_a_loss_that_is_no_number_are_named(precision, folder, models, monkeypatch):
    """Micro-batches of one picture: those that are asked about the knife, and no others."""
    monkeypatch.setattr(run, "choose_parts", run.choose_parts)  # put back what `poison` changes
    poison("knife")
    with pytest.raises(
        CheckFailed, match=r"step 1: the gradient is nan; the step was not taken\. The loss is"
    ) as error:
        cut_run(folder, "run", ASKED, *PRECISIONS[precision], *cut_into(1, 8))
    names = named_by(error)
    assert names
    assert all(name.startswith("squares|train: picture ") and name.endswith(": 'knife'") for name in names)
    assert all(p.isfinite().all() for p in models[0].parameters())
    assert not list((folder / "run").glob("checkpoint-*"))


def test_a_gradient_that_is_no_number_names_the_whole_step(folder, models, monkeypatch):
    """All losses are numbers: the backward pass alone is wrong, in the second micro-batch."""
    seen = iter(range(100))

    def wrong(gradient: Tensor) -> Tensor:
        return gradient * float("inf") if next(seen) == 1 else gradient

    choose = run.choose_parts

    def choose_and_hook(model: CoresModel, *args: Any) -> None:
        choose(model, *args)
        model.projection[0].weight.register_hook(wrong)

    monkeypatch.setattr(run, "choose_parts", choose_and_hook)
    with pytest.raises(CheckFailed, match="step 1: the gradient is (inf|nan); .* The step's samples: ") as error:
        cut_run(folder, "run", *cut_into(4, 2))
    assert len(named_by(error)) == 8
    assert all(p.isfinite().all() for p in models[0].parameters())


@pytest.fixture
def half(monkeypatch: pytest.MonkeyPatch) -> None:
    """fp16 with its loss scaler on the CPU, which accelerate has on GPUs alone."""
    create = CoresTrainer.create_accelerator_and_postprocess

    def created(self: CoresTrainer) -> None:
        create(self)
        accelerator = self.accelerator
        monkeypatch.setattr(accelerator.state, "_mixed_precision", "fp16")
        accelerator.native_amp, accelerator.scaler = True, torch.amp.GradScaler("cpu", init_scale=SCALE["first"])

    monkeypatch.setattr(CoresTrainer, "create_accelerator_and_postprocess", created)


@pytest.mark.usefixtures("half")
def test_an_overflow_that_the_scaler_handles_is_no_stop(folder, monkeypatch):
    monkeypatch.setitem(SCALE, "first", 2.0**40)  # far too large for fp16: it is halved until the gradients fit
    trainer = cut_run(folder, "run", "trainer.max_steps=40", *cut_into(2, 1))
    scale = trainer.accelerator.scaler.get_scale()
    assert 1 <= scale < 2.0**39
    assert trainer.state.global_step == 40
    assert all(p.isfinite().all() for p in trainer.model.parameters())


@pytest.mark.usefixtures("half")
def test_in_fp16_a_loss_that_is_no_number_is_a_stop(folder, monkeypatch):
    monkeypatch.setattr(run, "choose_parts", run.choose_parts)
    poison("knife")
    with pytest.raises(CheckFailed, match="The loss is no number for: squares"):
        cut_run(folder, "run", FEW, *cut_into(4, 2))


@pytest.mark.usefixtures("half")
def test_a_scaler_that_finds_no_scale_is_a_stop(folder, monkeypatch):
    choose = run.choose_parts

    def choose_and_hook(model: CoresModel, *args: Any) -> None:
        choose(model, *args)
        model.projection[0].weight.register_hook(lambda gradient: gradient * float("inf"))

    monkeypatch.setattr(run, "choose_parts", choose_and_hook)
    monkeypatch.setitem(SCALE, "first", 2.0)
    with pytest.raises(CheckFailed, match="step 3: the gradient is"):  # scales 2 and 1, then 0.5
        cut_run(folder, "run", "trainer.max_steps=9", *cut_into(2, 1))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ddp", "zero2"])
def test_one_process_stops_all(engine, folder):
    """Only the second one's losses are no numbers, in its second micro-batch of a step or its first."""
    from test_distributed import needs_deepspeed

    settings = [] if engine == "ddp" else ["trainer.deepspeed=zero2"]
    if settings:
        needs_deepspeed()
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29523"]
    command += [str(Path(__file__).with_name("split_run.py")), str(folder), "run", "poison"]
    command += [*settings, FEW, ASKED, *cut_into(1, 4), "trainer.seed=1"]  # the second process meets a knife early
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode != 0
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("cores: ")]
    assert "the step was not taken" in said
    assert "'knife'" in said
    assert not any(f"'{word}'" in said for word in ("kettle", "cup", "bread"))
    assert not list((folder / "run").glob("checkpoint-*"))
