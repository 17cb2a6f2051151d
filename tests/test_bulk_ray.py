"""`cores predict --engine ray`: two workers on Ray write what one writes without it, whoever is killed meanwhile."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from bulk_run import answer_here, files, write_manifest

pytest.importorskip("ray.data", reason="Ray Data is not installed: pip install 'cores[ray]'")
pytestmark = pytest.mark.slow

SCENES, BATCH, PART = 12, 2, 2
PATIENCE = 500  # seconds, where many others want the processors, too


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bulk")


@pytest.fixture(scope="module")
def manifest(place: Path) -> Path:
    return write_manifest(place / "in", SCENES)


@pytest.fixture(scope="module")
def whole(place: Path, manifest: Path) -> dict[str, bytes]:
    """What a run writes that nothing disturbs."""
    found = answer_here(manifest, place / "whole", batch=BATCH, part=PART)
    assert len(found) == (SCENES + 2) / PART
    return found


@pytest.fixture
def ray_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where Ray keeps its sockets, whose names may not be long. Nothing that was started there is left behind."""
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as name:
        yield Path(name)
        until(lambda: not processes(Path(name)))


@pytest.fixture
def start(ray_home: Path, manifest: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts the command on the manifest."""

    def started(out: Path, *flags: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "cores", "predict", "--engine", "ray", str(manifest), "--out", str(out)]
        command += ["--workers", "2", "--batch", str(BATCH), "--part", str(PART), "--device", "cpu", *flags]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, env=environment(ray_home), text=True, **pipes)

    return started


def environment(ray_home: Path) -> dict[str, str]:
    """Ray's sockets there, and a password, which it wants of all who are one cluster."""
    own = {"RAY_TMPDIR": str(ray_home), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}
    return {**os.environ, **own, "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}


def finished(process: subprocess.Popen[str]) -> str:
    """What it says on stdout, and on stderr when it fails."""
    out, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors[-3000:]
    return out


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def processes(ray_home: Path) -> list[psutil.Process]:
    """Those of Ray that was started there."""
    found = []
    for process in psutil.process_iter():
        try:
            if "ray" in " ".join(process.cmdline()) and process.environ().get("RAY_TMPDIR") == str(ray_home):
                found.append(process)
        except psutil.Error:
            continue
    return found


def workers(ray_home: Path) -> list[psutil.Process]:
    """Those that hold a model."""
    return [process for process in processes(ray_home) if "ray::MapWorker" in " ".join(process.cmdline())]


def test_a_killed_worker_loses_and_doubles_nothing(
    start: Callable[..., subprocess.Popen[str]], ray_home: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    process = start(tmp_path / "out")
    until(lambda: files(tmp_path / "out") or process.poll() is not None)
    victim = workers(ray_home)[0]
    victim.send_signal(signal.SIGKILL)
    assert "rows in" in finished(process)
    assert files(tmp_path / "out") == whole


def test_a_killed_program_goes_on_where_it_was_and_leaves_no_process(
    start: Callable[..., subprocess.Popen[str]], ray_home: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = start(out)
    until(lambda: len(files(out)) > 1 or process.poll() is not None)
    process.kill()
    process.communicate()
    until(lambda: not processes(ray_home))
    done = {file: file.stat().st_mtime_ns for file in out.glob("part-*")}
    assert 1 < len(done) < len(whole)
    said = finished(start(out))
    assert f"{len(b''.join(whole.values()).splitlines())} rows in" in said
    assert "4 error" in said
    assert files(out) == whole
    assert {file: file.stat().st_mtime_ns for file in done} == done, "what was done is not asked again"
    assert [entry.name for entry in out.iterdir() if entry.name.startswith(".")] == [".bulk"]


@pytest.fixture
def cluster(ray_home: Path) -> Iterator[str]:
    """Two machines of one processor each; gives their address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--node-ip-address", "127.0.0.1"]
    ray += ["--num-cpus", "1", "--object-store-memory", "90000000"]
    head = ["--head", "--port", address.partition(":")[2], "--include-dashboard", "false", "--temp-dir", str(ray_home)]
    try:
        for flags in (head, ["--address", address]):
            done = subprocess.run(
                [*ray, *flags], env=environment(ray_home), capture_output=True, text=True, timeout=PATIENCE
            )
            assert done.returncode == 0, done.stdout + done.stderr
        yield address
    finally:
        for process in processes(ray_home):
            process.kill()


def test_a_cluster_that_loses_a_machine_loses_nothing(
    start: Callable[..., subprocess.Popen[str]],
    ray_home: Path,
    cluster: str,
    whole: dict[str, bytes],
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    process = start(out, "--address", cluster)
    until(lambda: (files(out) and len(workers(ray_home)) == 2) or process.poll() is not None)
    homes = {worker.parent() for worker in workers(ray_home)}
    assert len(homes) == 2, "a worker on each machine"
    (lost,) = [raylet for raylet in homes if raylet and "--head" not in raylet.cmdline()]
    lost.kill()
    finished(process)
    assert files(out) == whole
