"""Being told to stop: what was half written is removed, in every verb, and what is being moved is moved to its end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cores.cli.signals import stoppable, undisturbed


def started(*args: str) -> subprocess.Popen[bytes]:
    """A command of ours that no signal is kept from, as nohup and shells keep some from what runs behind them."""
    return subprocess.Popen([sys.executable, "-m", "cores", *args], stderr=subprocess.PIPE, preexec_fn=_heard)


def _heard() -> None:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def told_at_the_end(running: subprocess.Popen[bytes]) -> bytes:
    """What it says on stderr; one that does not end is killed, and fails the test."""
    try:
        return running.communicate(timeout=60)[1]
    except subprocess.TimeoutExpired:
        running.kill()
        raise


def until(condition) -> None:  # type: ignore[no-untyped-def]
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("it never began to write")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_scenes_that_are_stopped_leave_no_folder(tmp_path: Path, number: signal.Signals) -> None:
    home = tmp_path / "a" / "b"
    running = started("scenes", "write", str(home), "--n", "100000", "--quiet")
    until(lambda: list(home.glob(".writing-*/scenes/*.png")))
    running.send_signal(number)
    told = told_at_the_end(running)
    assert running.returncode == (130 if number == signal.SIGINT else 128 + number)
    assert b"Traceback" not in told
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_before_stays(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    running = started("scenes", "write", str(tmp_path), "--n", "100000", "--quiet")
    until(lambda: list(tmp_path.glob(".writing-*/scenes/*.png")))
    running.terminate()
    told_at_the_end(running)
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]


def test_what_is_being_moved_is_moved_to_its_end() -> None:
    done = []

    def move() -> None:
        with stoppable():
            with undisturbed():
                os.kill(os.getpid(), signal.SIGTERM)
                done.append("moved")
            done.append("never")

    with pytest.raises(SystemExit) as stop:
        move()
    assert (done, stop.value.code) == (["moved"], 143)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_rank_among_others_dies_as_it_always_did(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may wait for another inside of torch, where no handler of Python's ever runs."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with stoppable():
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
