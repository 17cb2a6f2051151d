"""A published checkpoint wherever a model is named: converted once, and again when it changed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from published import published_model, write_clip, write_published
from shared import shared

import cores
from cores.checkpoints.find import find
from cores.checkpoints.load import load
from cores.checkpoints.published.converted import name_of, state_of
from cores.cli import main
from cores.errors import CheckpointError


def published(folder: Path, levels: int = 2) -> Path:
    """A published folder whose config names a CLIP that is there."""
    model = published_model(levels)
    clip = write_clip(folder / "clip", model)
    src = write_published(folder / "lisa", model)
    stored = json.loads((src / "config.json").read_text())
    (src / "config.json").write_text(json.dumps({**stored, "mm_vision_tower": str(clip)}))
    return src


def same_weights(one: Path, two: Path) -> bool:
    models = [load(path)[0].state_dict() for path in (one, two)]
    return models[0].keys() == models[1].keys() and all((v == models[1][k]).all() for k, v in models[0].items())


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORES_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(("levels", "kind"), [(1, "lisa"), (2, "cores")])
def test_it_is_converted_once_said_in_one_line_and_is_what_convert_makes(
    levels: int, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    src = published(tmp_path, levels)
    model = cores.load(src)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith(f"lisa: is a published {kind} checkpoint; it is converted, once, into {tmp_path}/cache")
    assert len(model.segment(Image.new("RGB", (40, 30)), ["cup"], max_new_tokens=4)) == 1
    place = find(src)
    assert capsys.readouterr().err == ""
    flags = ["--src", str(src), "--clip", str(tmp_path / "clip"), "--out", str(tmp_path / "out")]
    assert main(["convert", "--from", kind, "--quiet", *flags]) == 0
    assert same_weights(place, tmp_path / "out")


def test_every_command_takes_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    src = published(tmp_path)
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    asked = [str(tmp_path / "a.png"), "cup", "--model", str(src), "--max-new-tokens", "4"]
    assert main(["check", str(src), "--static"]) == 0
    assert main(["predict", *asked, "--out", str(tmp_path / "p")]) == 0
    assert main(["prompt", str(src), "--query", "cup"]) == 0
    assert capsys.readouterr().err.count("is converted, once") == 1


def test_a_source_that_changed_is_converted_again(tmp_path: Path) -> None:
    src = published(tmp_path)
    first = find(src)
    (src / "generation_config.json").write_text("{}")
    assert find(src) != first
    assert find(src) == find(src)


def test_files_of_the_same_size_and_time_and_another_clip_are_seen(tmp_path: Path) -> None:
    src = published(tmp_path)
    places = [find(src)]
    for file in (next(src.glob("*.safetensors"), None) or next(src.glob("*.bin")), tmp_path / "clip" / "config.json"):
        times, content = file.stat(), file.read_bytes()
        file.write_bytes(content)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
        places.append(find(src))
    assert len(set(places)) == 3


def test_a_snapshot_of_the_hub_is_known_by_its_revision(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--owner--name" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    before = state_of(snapshot)
    (snapshot / "later.txt").write_text("")
    assert (name_of(snapshot), state_of(snapshot)) == ("owner/name", before)
    assert state_of(Path(shutil.copytree(snapshot, snapshot.parent / "abd"))) != before


@pytest.mark.slow
def test_two_processes_convert_it_once(tmp_path: Path) -> None:
    src = published(tmp_path)
    code = "import sys; from cores.checkpoints.find import find; print(find(sys.argv[1]))"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(src)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    told = [process.communicate(timeout=300) for process in running]
    assert len({out for out, _ in told}) == 1
    assert "".join(err for _, err in told).count("is converted, once") == 1


def test_without_its_clip_the_command_that_takes_another_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    src = write_published(tmp_path / "src", published_model())
    with pytest.raises(CheckpointError, match="its CLIP cannot be had .*/home/somebody/clip.*--from cores --src"):
        find(src)
    assert not any((tmp_path / "cache" / "converted").glob("src-*/"))


def test_golden_layouts_answer(tmp_path: Path) -> None:
    src = Path(shutil.copytree(shared("golden/eval/models/cores"), tmp_path / "cores"))
    stored = json.loads((src / "config.json").read_text())
    stored["mm_vision_tower"] = str(shared("golden/eval/clip"))
    (src / "config.json").write_text(json.dumps(stored))
    (found,) = cores.load(src, device="auto", dtype="auto").segment(Image.new("RGB", (64, 48)), ["the cup"])
    assert found.size == (48, 64)
