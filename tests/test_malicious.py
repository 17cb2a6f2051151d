"""Files that would run programs when they are unpickled: nothing of them runs, and the error says what they wanted."""

import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from published import published_model, write_clip, write_published

from cores.checkpoints.tensors.deepspeed_shards import Consolidated
from cores.checkpoints.tensors.lazy import open_shards
from cores.cli import main
from cores.errors import CheckpointError


class Attack:
    """Leaves a mark where it was unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


def as_zip(file: Path, mark: Path) -> None:
    torch.save({"lm_head.weight": torch.zeros(2, 2), "x": Attack(mark)}, file)


def as_old_file(file: Path, mark: Path) -> None:
    torch.save({"x": Attack(mark)}, file, _use_new_zipfile_serialization=False)


def as_plain_pickle(file: Path, mark: Path) -> None:
    file.write_bytes(pickle.dumps({"x": Attack(mark)}, protocol=2))


def as_plain_pickle_of_today(file: Path, mark: Path) -> None:
    file.write_bytes(pickle.dumps({"x": Attack(mark)}, protocol=5))


def as_names_of_eval(file: Path, mark: Path) -> None:
    """What a tensor's own class is allowed to be asked for, with something else in its place."""
    file.write_bytes(b"\x80\x02cbuiltins\neval\n" + _text(f"open({str(mark)!r}, 'w')") + b"\x85R.")


def as_numpy_object(file: Path, mark: Path) -> None:
    file.write_bytes(b"\x80\x02cnumpy\nload\n" + _text(str(mark)) + b"\x85R.")


def as_zip_with_another_pickle(file: Path, mark: Path) -> None:
    torch.save({"x": torch.zeros(1)}, file)
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in parts.items():
            evil = pickle.dumps(Attack(mark), protocol=2)
            archive.writestr(name, evil if name.endswith("data.pkl") else content)


def _text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


ATTACKS = [as_zip, as_old_file, as_plain_pickle, as_plain_pickle_of_today, as_names_of_eval, as_numpy_object,
           as_zip_with_another_pickle]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_runs_and_the_wish_is_named(attack: Any, tmp_path: Path) -> None:
    file, mark = tmp_path / "pytorch_model.bin", tmp_path / "mark"
    attack(file, mark)
    with pytest.raises(CheckpointError) as caught:
        open_shards(file)
    said = str(caught.value)
    assert not mark.exists()
    assert said.startswith(f"{file}: refused: it asks to run ")
    assert any(name in said for name in ("posix.system", "nt.system", "builtins.eval", "numpy.load")), said
    assert "Nothing was run" in said


def test_the_attack_works_where_it_is_let(tmp_path: Path) -> None:
    """So that the tests above mean something."""
    file, mark = tmp_path / "pytorch_model.bin", tmp_path / "mark"
    as_plain_pickle(file, mark)
    pickle.loads(file.read_bytes())
    assert mark.exists()


@pytest.mark.parametrize("place", ["src", "clip", "optimizer"])
def test_a_conversion_stops_before_it_writes(place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, mark = published_model(), tmp_path / "mark"
    src, clip = write_published(tmp_path / "src", model, 1), write_clip(tmp_path / "clip", model)
    target = {"src": src, "clip": clip}.get(place)
    if target is None:
        src = tmp_path / "zero"
        src.mkdir()
        as_zip(src / "zero_pp_rank_0_mp_rank_00_optim_states.pt", mark)
        torch.save({}, src / "mp_rank_00_model_states.pt")
        with pytest.raises(CheckpointError, match=r"posix\.system"):
            Consolidated(src)
    else:
        as_zip(target / "pytorch_model.bin", mark)
        flags = ["--src", str(src), "--clip", str(clip), "--out", str(tmp_path / "out")]
        assert main(["convert", "--from", "cores", *flags]) == 2
        assert "refused: it asks to run posix.system" in capsys.readouterr().err
    assert not mark.exists()
    assert not (tmp_path / "out").exists()


def test_files_that_are_no_tensors_are_said_to_be(tmp_path: Path) -> None:
    for content, message in (
        (b"", "is damaged or no file of PyTorch's"),
        (b"<!DOCTYPE html><html>Not found</html>", "is a web page, and no weights"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git-LFS pointer, and no weights"),
        (b"\x80\x02J\x01", "is damaged or no file"),
        (b"PK\x03\x04 and no more", "is damaged or no file"),
    ):
        (tmp_path / "a.bin").write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            open_shards(tmp_path / "a.bin")
    torch.save({"a": torch.zeros(1), "epoch": 3}, tmp_path / "a.bin")
    with pytest.raises(CheckpointError, match=r"found also 'epoch' \(int\)"):
        open_shards(tmp_path / "a.bin")
    torch.save({1: torch.zeros(1)}, tmp_path / "a.bin")
    with pytest.raises(CheckpointError, match=r"found also 1 \(Tensor\)"):
        open_shards(tmp_path / "a.bin")
    torch.save(torch.zeros(3), tmp_path / "a.bin")
    with pytest.raises(CheckpointError, match="holds a Tensor, expected tensors by name"):
        open_shards(tmp_path / "a.bin")
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")
    with pytest.raises(CheckpointError, match=r"a\.safetensors: cannot be read"):
        open_shards(tmp_path / "a.safetensors")


def test_no_reader_of_ours_trusts_a_pickle() -> None:
    """Every torch.load in the package says weights_only=True, and nothing else unpickles."""
    package = Path(__file__).resolve().parents[1] / "src" / "cores"
    wrong = []
    for file in package.rglob("*.py"):
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
            code = line.split("#")[0]
            if ("torch.load(" in code and "weights_only=True" not in code) or "weights_only=False" in code:
                wrong.append(f"{file.name}:{number}")
            if "pickle.load" in code and "data/" not in file.as_posix():
                wrong.append(f"{file.name}:{number}")
    assert wrong == []
