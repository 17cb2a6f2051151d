"""A run that was stopped after any step and resumed is the run that never stopped, bit for bit."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_run import Squares, tiny_recipe, write_bases

from cores.checkpoints.find import shipped
from cores.checkpoints.runs.bases import weights_of
from cores.checkpoints.runs.best import step_of
from cores.checkpoints.runs.fingerprint import fingerprint
from cores.checkpoints.runs.origin import Base
from cores.cli import main
from cores.data.sample import Sample
from cores.errors import CheckpointError, RecipeError
from cores.evaluation.metrics import MaskMetrics
from cores.training.resuming import check_batch
from cores.training.run import train
from cores.training.trainer import CoresTrainer

STEPS = 8  # of 2 pictures out of 12: the second epoch begins after step 6
LEARNED = ("adapter_model.safetensors", "trained.safetensors")
SETTINGS = {"trainer__max_steps": STEPS, "trainer__save_strategy": "steps", "trainer__save_steps": 3}


def interrupted_squares(after: int, times: int = 1) -> type[Squares]:
    """Squares that press Ctrl-C when so many pictures have been looked at."""

    class Interrupted(Squares):
        looked = 0

        def __getitem__(self, i: int) -> Sample:
            Interrupted.looked += 1
            if Interrupted.looked == after:
                for _ in range(times):
                    os.kill(os.getpid(), signal.SIGINT)
            return super().__getitem__(i)

    return Interrupted


def run_of(tmp_path: Path, name: str, source: Any = Squares, resume: bool = False, **settings: Any) -> Path:
    run = tmp_path / name
    train(tiny_recipe(tmp_path, **SETTINGS, **settings), run, source, device="cpu", quiet=True, resume=resume)
    return run


def losses(run: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"]) for line in lines if "loss" in line]


def assert_same(run: Path, other: Path) -> None:
    for name in LEARNED:
        one, two = load_file(run / f"checkpoint-{STEPS}" / name), load_file(other / f"checkpoint-{STEPS}" / name)
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one)
    states = [torch.load(r / f"checkpoint-{STEPS}" / "optimizer.pt", weights_only=True)["state"] for r in (run, other)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][n]["exp_avg_sq"], states[1][n]["exp_avg_sq"]) for n in states[0])
    assert losses(run) == losses(other)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder with bases and a run that never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run_of(folder, "whole")


@pytest.mark.parametrize("looked", [1, 5, 11, 13, 15])
def test_ctrl_c_saves_the_step_and_resume_goes_on(whole, looked):
    folder, reference = whole
    name = f"stopped-{looked}"
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run_of(folder, name, interrupted_squares(looked))
    assert signal.getsignal(signal.SIGINT) is before
    stopped = max(int(f.name.rpartition("-")[2]) for f in (folder / name).glob("checkpoint-*"))
    assert stopped < STEPS
    assert [step for step, _ in losses(folder / name)] == list(range(1, stopped + 1))
    assert_same(run_of(folder, name, resume=True), reference)


def test_a_second_ctrl_c_stops_at_once_and_leaves_nothing_half_written(whole):
    folder, reference = whole
    with pytest.raises(KeyboardInterrupt):
        run_of(folder, "killed", interrupted_squares(11, times=2))
    assert sorted(f.name for f in (folder / "killed").iterdir()) == ["checkpoint-3", "log.jsonl", "recipe.yaml"]
    assert_same(run_of(folder, "killed", resume=True), reference)


def test_a_run_stopped_before_its_first_checkpoint_begins_again(whole):
    folder, reference = whole
    with pytest.raises(KeyboardInterrupt):
        run_of(folder, "early", interrupted_squares(1, times=2))
    assert not list((folder / "early").glob("checkpoint-*"))
    assert_same(run_of(folder, "early", resume=True), reference)


def test_workers_draw_the_same(whole):
    folder, reference = whole
    run = folder / "workers"
    recipe = tiny_recipe(folder, **SETTINGS, trainer__dataloader_num_workers=2)
    train(recipe, run, Squares, device="cpu", quiet=True)
    assert_same(run, reference)


def scored(*figures: float) -> Any:
    """An evaluation that finds these gIoU, one after the other."""
    left = iter(figures)

    def evaluate(*_: Any) -> MaskMetrics:
        metrics = MaskMetrics()
        metrics.update(np.arange(10)[None] < round(10 * next(left)), np.ones((1, 10), dtype=bool))
        return metrics

    return evaluate


@pytest.mark.parametrize(("strategy", "step"), [("steps", 3), ("epoch", 6), ("steps", 8)])
def test_ctrl_c_in_a_step_that_is_evaluated_evaluates_it_later(strategy, step, tmp_path, monkeypatch):
    """With steps, with epochs (the second begins after step 6), and in the last step of all."""
    settings = {**SETTINGS, "trainer__eval_strategy": strategy, "trainer__eval_steps": 3}
    recipe, run = tiny_recipe(tmp_path, **settings), tmp_path / "run"
    compute_loss = CoresTrainer.compute_loss

    def interrupted(trainer: CoresTrainer, *args: Any, **kwargs: Any) -> Any:
        if trainer.state.global_step == step - 1:
            os.kill(os.getpid(), signal.SIGINT)
        return compute_loss(trainer, *args, **kwargs)

    monkeypatch.setattr(CoresTrainer, "compute_loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, run, Squares, evaluate=scored(0.1, 0.2, 0.3), device="cpu", quiet=True)
    monkeypatch.undo()
    assert [line["step"] for line in lines_of(run) if "loss" in line][-1] == step
    assert not [line for line in lines_of(run) if "eval_giou" in line and line["step"] == step]
    train(recipe, run, Squares, evaluate=scored(0.9, 0.4, 0.3), device="cpu", quiet=True, resume=True)
    (found,) = [line["eval_giou"] for line in lines_of(run) if "eval_giou" in line and line["step"] == step]
    assert found == pytest.approx(0.9)
    assert step_of(run / "best") == step
    assert json.loads((run / "best" / "trainer_state.json").read_text())["best_metric"] == pytest.approx(0.9)


def lines_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_a_finished_run_that_is_resumed_trains_no_further(whole):
    folder, _ = whole
    run = run_of(folder, "finished")
    before = (run / "log.jsonl").read_text(), fingerprint(run / f"checkpoint-{STEPS}")
    trainer = train(tiny_recipe(folder, **SETTINGS), run, Squares, device="cpu", quiet=True, resume=True)
    assert trainer.state.global_step == STEPS
    assert ((run / "log.jsonl").read_text(), fingerprint(run / f"checkpoint-{STEPS}")) == before
    assert_same(run, folder / "whole")


@pytest.mark.parametrize("torn", ['{"step": 3, "lo', "\x00\x00\x00", '{"step"'])
def test_a_torn_last_line_of_the_log_is_forgotten(torn, whole):
    folder, reference = whole
    name = f"torn-{len(torn)}"
    with pytest.raises(KeyboardInterrupt):
        run_of(folder, name, interrupted_squares(11, times=2))
    with (folder / name / "log.jsonl").open("a") as log:
        log.write(torn)
    assert_same(run_of(folder, name, resume=True), reference)


def test_a_run_goes_on_for_longer(whole, capfd):
    """With a schedule that does not look at the end it is the longer run; else its rate follows the new one."""
    folder, _ = whole
    constant = {**SETTINGS, "trainer__lr_scheduler_type": "constant", "trainer__max_steps": 4}
    train(tiny_recipe(folder, **constant), folder / "longer", Squares, device="cpu", quiet=True)
    more = tiny_recipe(folder, **{**constant, "trainer__max_steps": STEPS})
    train(more, folder / "longer", Squares, device="cpu", resume=True)
    assert "goes on to 8 steps in place of 4: constant does not depend on it" in capfd.readouterr().err
    train(more, folder / "long", Squares, device="cpu", quiet=True)
    assert_same(folder / "longer", folder / "long")

    linear = {**SETTINGS, "trainer__max_steps": 4}
    train(tiny_recipe(folder, **linear), folder / "linear", Squares, device="cpu", quiet=True)
    train(tiny_recipe(folder, **SETTINGS), folder / "linear", Squares, device="cpu", resume=True)
    assert "the learning rate follows its schedule over the new length" in capfd.readouterr().err
    rates = [line["learning_rate"] for line in lines_of(folder / "linear") if "learning_rate" in line]
    whole_rates = [line["learning_rate"] for line in lines_of(folder / "whole") if "learning_rate" in line]
    assert len(rates) == 8
    assert rates[4:] == whole_rates[4:]
    shorter = tiny_recipe(folder, **{**SETTINGS, "trainer__max_steps": 5})
    with pytest.raises(RecipeError, match="was to have 8 steps, now 5"):
        train(shorter, folder / "linear", Squares, device="cpu", resume=True)


def test_another_batch_is_refused_and_another_cut_of_it_is_said(tmp_path, capfd):
    settings = {**SETTINGS, "lora__dropout": 0}
    recipe = tiny_recipe(tmp_path, **settings)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "run", interrupted_squares(7), device="cpu", quiet=True)
    for change in ({"trainer__per_device_train_batch_size": 1}, {"trainer__gradient_accumulation_steps": 2}):
        with pytest.raises(RecipeError, match=r"a step had 2 pictures .* now it has (1|4) "):
            train(tiny_recipe(tmp_path, **settings, **change), tmp_path / "run", Squares, device="cpu", resume=True)
    cut = {"trainer__per_device_train_batch_size": 1, "trainer__gradient_accumulation_steps": 2}
    train(tiny_recipe(tmp_path, **settings, **cut), tmp_path / "run", Squares, device="cpu", resume=True)
    assert "a step has 2 pictures as before" in capfd.readouterr().err
    train(recipe, tmp_path / "reference", Squares, device="cpu", quiet=True)
    np.testing.assert_allclose(
        [loss for _, loss in losses(tmp_path / "run")], [loss for _, loss in losses(tmp_path / "reference")], rtol=0.05
    )


def test_another_number_of_processes_is_seen(tmp_path):
    """By the generators' states that each process leaves."""
    for rank in range(2):
        (tmp_path / f"rng_state_{rank}.pth").touch()
    recipe = tiny_recipe(tmp_path)
    with pytest.raises(RecipeError, match=r"had 4 pictures \(2 processes x 2 pictures x 1 times\), now it has 2"):
        check_batch(recipe, recipe, tmp_path, 1)
    twice = tiny_recipe(tmp_path, trainer__gradient_accumulation_steps=2)
    assert "as 1 processes x 2 pictures x 2 times" in str(check_batch(recipe, twice, tmp_path, 1))
    assert check_batch(recipe, recipe, tmp_path, 2) is None


def test_the_best_score_is_not_forgotten(tmp_path):
    evaluate = scored(0.6, 0.2, 0.4)
    settings = {**SETTINGS, "trainer__eval_strategy": "steps", "trainer__eval_steps": 3}
    recipe, run = tiny_recipe(tmp_path, **settings), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(recipe, run, interrupted_squares(9), evaluate=evaluate, device="cpu", quiet=True)
    trainer = train(recipe, run, Squares, evaluate=evaluate, device="cpu", quiet=True, resume=True)
    assert trainer.state.best_metric == pytest.approx(0.6)
    assert json.loads((run / "best" / "trainer_state.json").read_text())["global_step"] == 3


def test_a_run_goes_on_with_its_own_settings_only(whole):
    folder, _ = whole
    with pytest.raises(RecipeError, match=r"lora.r: 2 then, 4 now"):
        run_of(folder, "whole", resume=True, lora__r=4)


def test_a_runs_own_recipe_is_all_that_resuming_needs(tmp_path, capsys):
    """Through the command line, on files: the data directory is in the run's recipe."""
    assert main(["scenes", "write", str(tmp_path / "own"), "--n", "2", "--quiet"]) == 0
    tiny_recipe(tmp_path)
    run = str(tmp_path / "run")
    settings = ["data.sources={own: [ReasonSeg|train]}", "evaluation.sources=[ReasonSeg|val]", "evaluation.limit=2"]
    settings += ["trainer.eval_strategy=steps", "trainer.eval_steps=2", "trainer.max_steps=2"]
    command = [str(tmp_path / "tiny.yaml"), *settings, "--data", str(tmp_path / "own")]
    assert main(["train", *command, "--out", run, "--device", "cpu", "--quiet"]) == 0
    assert "2 steps, best gIoU 0." in capsys.readouterr().out
    shutil.rmtree(tmp_path / "run" / "checkpoint-2")
    again = [str(tmp_path / "run" / "recipe.yaml"), "--out", run, "--resume", "--device", "cpu", "--quiet"]
    assert main(["train", *again]) == 0
    assert (tmp_path / "run" / "checkpoint-2").is_dir()


def test_a_changed_base_is_an_error(tmp_path):
    run = run_of(tmp_path, "run")
    file = tmp_path / "bases" / "segmenter" / "model.safetensors"
    state = load_file(file)
    state["mask_decoder.iou_token.weight"][0, 0] += 1e-3
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="weights have changed since the run began"):
        train(tiny_recipe(tmp_path, **SETTINGS), run, Squares, device="cpu", quiet=True, resume=True)


def test_a_base_that_was_moved_can_be_named(tmp_path, capsys):
    """On resuming and on merging; another base in its place is refused."""
    settings = {**SETTINGS, "data__sources": "{scenes: [scenes|train]}", "trainer__max_steps": 2}
    tiny_recipe(tmp_path, **settings)
    flags = [f"{key.replace('__', '.')}={value}" for key, value in settings.items()]
    run = str(tmp_path / "run")
    options = ["--out", run, "--device", "cpu", "--quiet"]
    assert main(["train", str(tmp_path / "tiny.yaml"), *flags, *options]) == 0
    (tmp_path / "bases").rename(tmp_path / "elsewhere")
    assert main(["merge", run, "--out", str(tmp_path / "model")]) == 2
    assert "--base bases=PATH" in capsys.readouterr().err
    again = ["train", str(tmp_path / "run" / "recipe.yaml"), "trainer.max_steps=3", *options, "--resume"]
    moved = ["--base", f"bases={tmp_path / 'elsewhere'}"]
    assert main([*again, *moved]) == 0
    assert Base.load(tmp_path / "run" / "checkpoint-3").paths == {"bases": str(tmp_path / "elsewhere")}
    (tmp_path / "elsewhere").rename(tmp_path / "third")
    moved = ["--base", f"bases={tmp_path / 'third'}"]
    assert main(["merge", run, "--out", str(tmp_path / "model"), *moved]) == 0, capsys.readouterr().err
    capsys.readouterr()
    assert main(["merge", run, "--out", str(tmp_path / "other"), "--base", f"mllm={tmp_path / 'third'}"]) == 2
    assert "its base is bases, there is no mllm: say bases=PATH" in capsys.readouterr().err
    assert main(["merge", run, "--out", str(tmp_path / "other"), "--base", f"basis={tmp_path}"]) == 2
    assert "expected ROLE=PATH" in capsys.readouterr().err
    file = tmp_path / "third" / "segmenter" / "model.safetensors"
    save_file({name: value + 1e-3 for name, value in load_file(file).items()}, file, metadata={"format": "pt"})
    assert main(["merge", run, "--out", str(tmp_path / "other"), *moved]) == 2
    assert "weights have changed since the run began" in capsys.readouterr().err


def test_a_run_whose_base_was_moved_is_evaluated_and_asked(tmp_path, capsys):
    """By the same weights in another place alone; without them, or with others, nothing is written."""
    run = str(run_of(tmp_path, "run"))
    picture = tmp_path / "a.png"
    Squares()[0].image.save(picture)
    commands = [
        ["eval", run, "--on", "scenes|test", "--limit", "1", "--max-new-tokens", "4", "--no-sanity"],
        ["predict", str(picture), "kettle", "--model", run, "--max-new-tokens", "4"],
    ]

    def answers(name: str, *more: str) -> list[tuple[int, dict[str, str] | None]]:
        """The exit code of each command, and the files that it left."""
        found = []
        for number, command in enumerate(commands):
            out = tmp_path / f"{name}-{number}"
            code = main([*command, *more, "--out", str(out), "--device", "cpu", "--quiet"])
            files = {file.name: file.read_bytes().hex() for file in out.glob("*.json*")} if out.exists() else None
            found.append((code, files))
        return found

    before = answers("before")
    assert [(code, bool(files)) for code, files in before] == [(0, True)] * 2
    (tmp_path / "bases").rename(tmp_path / "elsewhere")
    moved = ["--base", f"bases={tmp_path / 'elsewhere'}"]
    capsys.readouterr()
    assert answers("lost") == [(2, None)] * 2
    assert capsys.readouterr().err.count("say --base bases=PATH") == 2
    assert answers("moved", *moved) == before
    file = tmp_path / "elsewhere" / "segmenter" / "model.safetensors"
    save_file({name: value + 1e-3 for name, value in load_file(file).items()}, file, metadata={"format": "pt"})
    capsys.readouterr()
    assert answers("other", *moved) == [(2, None)] * 2
    assert capsys.readouterr().err.count("weights have changed since the run began") == 2


def test_only_what_a_run_stands_on_is_compared(tmp_path, monkeypatch):
    """The shipped model's refiner is no base; its decoder is, and a projection beside one's own bases, too."""
    package = tmp_path / "shipped"
    for name in ("cores-tiny", "bases-tiny"):
        shutil.copytree(shipped(name), package / name)
    monkeypatch.setattr("cores.checkpoints.find.SHIPPED", package)
    base, file = Base({"bases": "shipped"}), package / "cores-tiny" / "model.safetensors"
    before, state = weights_of(base), load_file(file)
    learned = load_file(package / "bases-tiny" / "difference.safetensors")
    for prefix, same in (("refiner.", True), ("segmenter.", False)):
        name = next(name for name in state if name.startswith(prefix) and name not in learned)
        save_file({**state, name: state[name] + 1}, file, metadata={"format": "pt"})
        assert (weights_of(base) == before) is same

    own = write_bases(tmp_path / "bases")
    save_file({"0.weight": torch.zeros(2)}, own / "projection.safetensors")
    before = weights_of(Base({"bases": str(own)}))
    save_file({"0.weight": torch.ones(2)}, own / "projection.safetensors")
    assert weights_of(Base({"bases": str(own)}))["projection"] != before["projection"]
