"""The command line as a user meets it: quick help without torch, exit codes, one clear line for every mistake."""

import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from cores.cli import VERBS, main
from cores.errors import CheckpointError
from cores.recipe import load_recipe
from cores.recipe_files import recipe_names


def cores(*args: str, **kwargs: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "cores", *args], capture_output=True, text=True, **kwargs)


def test_help_is_quick_and_loads_no_torch():
    code = (
        "import sys, time\nstart = time.monotonic()\nfrom cores.cli import main\ncode = main(['--help'])\n"
        "assert time.monotonic() - start < 1\nassert 'torch' not in sys.modules\nsys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for verb in VERBS:
        assert f"\n  {verb} " in done.stdout


def test_version_and_no_verb_at_all(capsys):
    import cores as package

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"cores {package.__version__}\n"
    assert main([]) == 2


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_without_torch(verb):
    code = f"import sys\nfrom cores.cli import main\ntry:\n    main([{verb!r}, '--help'])\nfinally:\n"
    code += "    assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"usage: cores {verb}")


MISTAKES = [
    (["pedict"], "there is no verb pedict; did you mean predict?"),
    (["train", "tinny", "--out", "{tmp}/run"], "tinny: is neither a file nor a recipe; did you mean tiny?"),
    (["train", "tiny", "model.refinr=paper", "--out", "{tmp}/run"], "there is no model.refinr; did you mean refiner?"),
    (["train", "tiny", "--out", "{tmp}"], "exists already: take another, --resume to go on, or --overwrite"),
    (["train", "tiny", "--out", "{tmp}", "--overwrite"], "is not the folder of a run"),
    (["train", "tiny", "--out", "{tmp}", "--resume"], "there is no run to resume"),
    (["train", "tiny", "--out", "{tmp}/run", "--resume", "--overwrite"], "take one"),
    (["train", "tiny"], "--out RUN: say where the run's folder is to be"),
    (["merge", "{tmp}/nothing", "--out", "{tmp}/model"], "there is no such folder"),
    (["merge", "{tmp}", "--out", "{tmp}"], "exists already"),
    (["recipes", "cp", "tiny", "{tmp}/no/where.yaml"], "there is no folder"),
    (["scenes", "write", "{tmp}/mine/below", "--n", "1"], "cannot be read or written: Not a directory"),
]


@pytest.mark.parametrize(("args", "message"), MISTAKES, ids=lambda value: "-".join(value)[:40] if value else "")
def test_a_users_mistake_is_one_line_and_exit_code_2(args, message, tmp_path, capsys):
    (tmp_path / "mine").write_text("kept")
    assert main([arg.replace("{tmp}", str(tmp_path)) for arg in args]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("cores: ")
    assert captured.err.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["mine"], "a mistake leaves nothing behind"


def test_an_error_that_is_a_list_stays_one(capsys, monkeypatch):
    def fail(args):
        raise CheckpointError("m: the weights do not fit:\n  a: has \x1b[31m\n  b: has\nnone")

    monkeypatch.setattr("cores.cli.check.main", fail)
    assert main(["check"]) == 2
    assert capsys.readouterr().err == "cores: m: the weights do not fit:\n  a: has \\x1b[31m\n  b: has\\x0anone\n"


def test_recipes_are_listed_shown_copied_and_checked(tmp_path, capsys):
    assert main(["recipes", "ls"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == recipe_names()
    assert main(["recipes", "cp", "tiny-own", str(tmp_path)]) == 0
    mine = tmp_path / "tiny-own.yaml"
    assert load_recipe(mine) == load_recipe("tiny-own")
    assert main(["recipes", "cp", "tiny-own", str(mine)]) == 2
    assert main(["recipes", "check", str(mine), "tiny"]) == 0
    capsys.readouterr()
    assert main(["recipes", "show", "tiny", "model.refiner=region"]) == 0
    shown = tmp_path / "shown.yaml"
    shown.write_text(capsys.readouterr().out)
    assert load_recipe(shown) == load_recipe("tiny", ["model.refiner=region"])


def test_env_names_versions_and_devices(capsys):
    assert main(["env"]) == 0
    printed = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert printed["torch"] == version("torch")
    assert {"cores", "python", "transformers", "peft", "cpu"} <= set(printed)


def test_ctrl_c_is_130_and_leaves_nothing(tmp_path: Path):
    """In the middle of long work: the first sign of its progress is there."""
    words = ["scenes", "write", str(tmp_path / "own"), "--split", "val", "--n", "99999"]
    process = subprocess.Popen(
        [sys.executable, "-m", "cores", *words],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background ignore it
    )
    assert process.stderr is not None
    process.stderr.read(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.endswith("cores: interrupted\n")
    assert list((tmp_path / "own").rglob("*")) == []
