"""An evaluation that is killed goes on, and several processes find what one finds: the same files, bit for bit."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from learned import save

from cores.cli import main

HERE = Path(__file__).parent
FILES = ("results.json", "answers.jsonl", "report.html")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("model"))


def arguments(model: Path, out: Path, *more: str) -> list[str]:
    chosen = ["--on", "scenes|test", "scenes|novel", "--limit", "5", "--pictures", "2", "--max-new-tokens", "12"]
    return [str(model), *chosen, "--out", str(out), "--device", "cpu", "--quiet", *more]


@pytest.fixture(scope="module")
def whole(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an evaluation leaves that nobody disturbed."""
    out = tmp_path_factory.mktemp("whole") / "scores"
    start([str(HERE / "evaluated.py"), "1000", *arguments(model, out)])
    return out


def start(words: list[str], expected: int = 0) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, env=environment, cwd=HERE, timeout=500
    )
    assert done.returncode == expected, done.stderr[-3000:]
    return done.stderr


def assert_same(out: Path, whole: Path) -> None:
    assert sorted(file.name for file in out.iterdir()) == sorted(FILES)
    for name in FILES:
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.parametrize("batches", [1, 4])
def test_a_killed_evaluation_goes_on_to_the_same_files(model: Path, whole: Path, tmp_path: Path, batches: int) -> None:
    out = tmp_path / "scores"
    start([str(HERE / "evaluated.py"), str(batches), *arguments(model, out)], expected=-signal.SIGKILL)
    assert [entry.name for entry in out.iterdir()] == ["unfinished"]
    before = (out / "unfinished" / "batches-0.jsonl").read_bytes()
    assert before.count(b"\n") == batches
    assert "other settings (seed: 0, now 1)" in start(
        ["-m", "cores", "eval", *arguments(model, out, "--seed", "1")], 2
    )
    assert (out / "unfinished" / "batches-0.jsonl").read_bytes().startswith(before)
    start(
        [str(HERE / "evaluated.py"), str(6 - batches), *arguments(model, out)]
    )  # and not one batch more than is left
    assert_same(out, whole)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_find_what_one_finds(model: Path, whole: Path, tmp_path: Path, processes: int) -> None:
    out = tmp_path / "scores"
    run = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    run += [str(HERE / "evaluated.py"), "late"] if processes == 2 else ["-m", "cores", "eval"]
    start([*run, *arguments(model, out)])
    assert_same(out, whole)


@pytest.mark.slow
def test_one_process_goes_on_where_two_were_killed(model: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores"
    run = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(HERE / "evaluated.py"), "1"]
    start([*run, *arguments(model, out)], expected=1)
    found = [file.read_bytes().count(b"\n") for file in (out / "unfinished").glob("batches-*.jsonl")]
    assert 1 <= sum(found) <= 2
    start([str(HERE / "evaluated.py"), "1000", *arguments(model, out)])
    assert_same(out, whole)


def test_samples_that_changed_are_not_joined_with_the_old_ones(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cores.evaluation import evaluator, journal

    first = evaluator.evaluate_asker

    def stopped(*args: object, **how: object) -> None:
        first(*args, **how)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    out, chosen = tmp_path / "scores", ["--on", "scenes|test", "--limit", "1", "--answers", "teacher-forced"]
    words = ["eval", str(model), *chosen, "--out", str(out), "--quiet", "--no-sanity"]
    monkeypatch.setattr(evaluator, "evaluate_asker", stopped)
    assert main(words) == 130
    monkeypatch.setattr(evaluator, "evaluate_asker", first)
    digest = journal.digest
    monkeypatch.setattr("cores.evaluation.part.digest", lambda sample: "another" + digest(sample))
    assert main(words) == 2
    assert "picture 0 or its questions changed" in capsys.readouterr().err
    monkeypatch.setattr("cores.evaluation.part.digest", digest)
    told = model / "generation_config.json"
    before = told.read_text()
    told.write_text(before.replace("max_new_tokens", "min_new_tokens"))
    assert main(words) == 2
    assert "model's settings" in capsys.readouterr().err
    told.write_text(before)
    judge = evaluator.judge
    monkeypatch.setattr(evaluator, "judge", None)  # nothing is left to be asked
    assert main(words) == 0
    assert sorted(file.name for file in out.iterdir()) == sorted(FILES)
    monkeypatch.setattr(evaluator, "judge", judge)
    monkeypatch.setattr(evaluator, "evaluate_asker", stopped)
    assert main([*words, "--overwrite"]) == 130
    monkeypatch.setattr(evaluator, "evaluate_asker", first)
    monkeypatch.setattr("cores.evaluation.part.digest", lambda sample: "another" + digest(sample))
    assert main([*words, "--overwrite"]) == 0, "it begins anew"
