"""The folder of a run: one process holds it, a start that fails leaves nothing, and a full disk is one line."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_run import Squares, tiny_recipe

from cores.cli import main
from cores.errors import UserError
from cores.training.folder import clear, taken
from cores.training.progress import contents, figures
from cores.training.run import train

SCENES = ["data.sources={scenes: [scenes|train]}", "trainer.max_steps=2", "data.questions_per_image=1"]


def command(folder: Path, *settings: str, run: str = "run") -> list[str]:
    if not (folder / "tiny.yaml").exists():
        tiny_recipe(folder)
    return ["train", str(folder / "tiny.yaml"), *SCENES, *settings, "--out", str(folder / run), "--device", "cpu"]


def holder(run: Path) -> subprocess.Popen[str]:
    """Another process that holds a run's folder, with a worker that outlives it for a while."""
    code = (
        "import os, sys, time; from pathlib import Path; from cores.training.folder import taken\n"
        "with taken(Path(sys.argv[1])):\n"
        "    worker = not os.fork()\n"
        "    if not worker:\n"
        "        print('held', flush=True)\n"
        "    time.sleep(5 if worker else 100)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(run)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_two_runs_do_not_share_a_folder(tmp_path, capsys):
    """The second is refused while the first is there, and not any more when the first was killed."""
    args = command(tmp_path)
    process = holder(tmp_path / "run")
    capsys.readouterr()
    try:
        assert main(args) == 2
        error = capsys.readouterr().err
        assert "another process trains into it" in error
        assert error.count("\n") == 1
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert main([*command(tmp_path), "--quiet"]) == 0
    for flag, words in (((), "exists already"), (("--resume", "--overwrite"), "take one")):
        assert main([*command(tmp_path), *flag]) == 2
        assert words in capsys.readouterr().err


def test_a_folder_is_held_once_in_a_process_and_cleared_as_a_whole(tmp_path):
    run = tmp_path / "run"
    with taken(run), taken(run):
        (run / "recipe.yaml").write_text("model: {}")
        (run / "best").symlink_to("checkpoint-1")
        (run / "checkpoint-1").mkdir()
        clear(run)
        assert list(run.iterdir()) == []
    (run / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="is not the folder of a run"), taken(run, replace=True):
        pass
    with pytest.raises(UserError, match="is a file"), taken(run / "letter.txt"):
        pass
    assert (run / "letter.txt").read_text() == "dear"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("trainer.lr_scheduler_kwargs={nonsense: 1}", "trainer.lr_scheduler_type: "),
        ("trainer.lr_scheduler_type=warmup_stable_decay", "trainer.lr_scheduler_type: "),
        ("trainer.optim=adamw_apex_fused", "trainer.optim: "),
        ("trainer.log_level=loud", "trainer: 'loud'"),
        ("trainer.report_to=comet_ml", "trainer.report_to: comet_ml is not installed"),
        ("evaluation.sources=[ReasonSeg|val]", "evaluation.sources: ReasonSeg|val: lies in a data directory"),
        ("data.sources={mine: [ReasonSeg|train]}", "data.sources.mine: ReasonSeg|train: lies in a data directory"),
        ("model.bases=nowhere", "nowhere: expected a folder with mllm/ and segmenter/"),
        ("lora.targets=[nothing]", "lora.targets: the language model has no layers named nothing"),
    ],
)
def test_a_start_that_fails_is_one_line_and_leaves_nothing(setting, message, tmp_path, capsys):
    capsys.readouterr()
    assert main([*command(tmp_path, setting, run="runs/one"), "--quiet"]) == 2
    error = capsys.readouterr().err.splitlines()
    assert error[-1].startswith("cores: ")
    assert message in error[-1]
    assert not (tmp_path / "runs").exists()


FSDP = "cores: trainer.fsdp: only FSDP2 is taken, not FSDP1 nor settings of its own: say trainer.fsdp=fsdp2"


def test_fsdp_that_the_environment_asks_for_is_refused(tmp_path, monkeypatch, capsys):
    """As `accelerate launch` does; no recipe says it then."""
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    args = [*command(tmp_path), "--quiet"]
    capsys.readouterr()
    assert main(args) == 2
    error = capsys.readouterr().err
    assert (error.startswith(FSDP), error.count("\n")) == (True, 1)
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_to_be_replaced_stays_when_the_new_one_cannot_start(tmp_path, capsys):
    assert main([*command(tmp_path), "--quiet"]) == 0
    assert main([*command(tmp_path, "lora.targets=[nothing]"), "--quiet", "--overwrite"]) == 2
    assert (tmp_path / "run" / "checkpoint-2").is_dir()
    assert main([*command(tmp_path, "trainer.max_steps=1"), "--quiet", "--overwrite"]) == 0
    assert sorted(f.name for f in (tmp_path / "run").iterdir()) == ["checkpoint-1", "log.jsonl", "recipe.yaml"]


def test_a_killed_start_can_begin_again(tmp_path):
    """Between taking the folder and writing its recipe: what is left is an empty folder."""
    (tmp_path / "run").mkdir()
    assert main([*command(tmp_path), "--quiet"]) == 0


@pytest.mark.parametrize("limit", [4_000, 60_000])
def test_a_full_disk_is_one_line(limit, tmp_path):
    """Files end after so many bytes, as if the disk were full: the optimiser's, or the first one of the checkpoint."""
    args = command(tmp_path)
    code = (
        "import resource, sys; from cores.cli import main\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run([sys.executable, "-c", code, *args, "--quiet"], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr[-2000:]
    said = [line for line in done.stderr.splitlines() if line.startswith("cores: ")]
    assert len(said) == 1
    assert re.search("the disk is full: .* --resume", said[0])
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "run").glob("checkpoint-*"))
    assert not (tmp_path / "run" / ".writing").exists()
    assert main([*args, "--quiet", "--resume"]) == 0


def test_a_run_says_what_it_starts_with_and_its_log_reads_like_figures(tmp_path, capfd):
    train(tiny_recipe(tmp_path, trainer__max_steps=2), tmp_path / "run", Squares, device="cpu")
    said = capfd.readouterr()
    lines = (said.err + said.out).replace("\r", "\n").splitlines()
    (parameters,) = [line for line in lines if " parameters train: lora, embeddings, " in line]
    assert re.match(r"[\d,]+ of [\d,]+ parameters train", parameters)
    assert [line for line in lines if re.fullmatch(r"cpu, about \d+\.\d GB a device by estimate .*", line)]
    assert "squares: squares|train: 12 pictures, 48 questions" in lines
    assert f"2 steps of 2 pictures (0.333 epochs); log: {tmp_path / 'run' / 'log.jsonl'}" in lines
    (second,) = [line for line in lines if line.startswith("step 2/2: loss ")]
    assert re.search(r"text [\d.]+, mask [\d.]+, bce [\d.]+, dice [\d.]+, location 0, rate .* s a step, ", second)
    assert "{" not in said.out


def test_figures_of_an_evaluation_and_of_many_pictures():
    assert figures({"eval_giou": 0.51234, "epoch": 1.0}, 1200, 5000, 0) == "step 1,200/5,000: evaluation: giou 0.5123"

    class Many(Squares):
        def __len__(self) -> int:
            return 1000

    assert contents(Many()) == "1,000 pictures, about 4,000 questions"


@pytest.mark.slow
def test_a_kill_lets_go_of_the_folder(tmp_path):
    """The real program with a worker that loads samples, killed in a step; at once it can be resumed."""
    args = [*command(tmp_path, "trainer.max_steps=500", "trainer.dataloader_num_workers=1"), "--quiet"]
    process = subprocess.Popen([sys.executable, "-m", "cores", *args], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "log.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with taken(tmp_path / "run", resume=True):
        assert (tmp_path / "run" / "recipe.yaml").is_file()
