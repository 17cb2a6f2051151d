"""Checkpoints by their hub id, from a small server that speaks the hub's protocol, breaks off, and forgets files."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from published import published_model, write_clip, write_published
from tiny import tiny_model
from tiny_tokenizer import tiny_processor

from cores.checkpoints.find import find
from cores.checkpoints.load import load
from cores.checkpoints.save import save
from cores.errors import CheckpointError
from cores.hub import choose, fetch
from cores.processing import CoresProcessor

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REVISION = "v1.0"


class Hub(BaseHTTPRequestHandler):
    """Repositories in folders: `/api/models/ID/...` says what is there, `/ID/resolve/REV/FILE` gives a file."""

    root: ClassVar[Path]
    break_after: ClassVar[int | None] = None  # bytes of a weight file, once
    log: ClassVar[list[str]] = []
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET(body=False)

    def do_GET(self, body: bool = True) -> None:
        path = self.path.split("?")[0].strip("/").split("/")
        self.log.append(f"{self.command} {self.path} {self.headers.get('Range', '')}".strip())
        if path[:2] == ["api", "models"]:
            self._about(path[2:], body)
        elif len(path) == 5 and path[2] == "resolve":
            self._file("/".join(path[:2]), path[3], path[4], body)
        else:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"}, body)

    def _about(self, path: list[str], body: bool) -> None:
        name, revision = "/".join(path[:2]), path[3] if len(path) > 3 else "main"
        folder = self.root / name
        if not folder.is_dir():
            return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)
        if revision not in ("main", REVISION, COMMIT):
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"}, body)
        files = sorted(file.name for file in folder.iterdir())
        if path[2:3] == ["tree"]:
            found: Any = [
                {"type": "file", "path": f, "size": (folder / f).stat().st_size, "oid": _etag(folder / f)}
                for f in files
            ]
        else:
            found = {
                "id": name,
                "modelId": name,
                "sha": COMMIT,
                "private": False,
                "tags": [],
                "downloads": 0,
                "likes": 0,
            }
            found["siblings"] = [{"rfilename": file} for file in files]
        return self._send(200, json.dumps(found).encode(), {"Content-Type": "application/json"}, body)

    def _file(self, name: str, revision: str, file: str, body: bool) -> None:
        path = self.root / name / file
        if revision not in ("main", REVISION, COMMIT) or not path.is_file():
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"}, body)
        content, headers, code = path.read_bytes(), {"ETag": f'"{_etag(path)}"', "X-Repo-Commit": COMMIT}, 200
        headers["Accept-Ranges"] = "bytes"
        total, asked = len(content), self.headers.get("Range")
        if asked:
            start = int(asked.removeprefix("bytes=").split("-")[0])
            content, code = content[start:], 206
            headers["Content-Range"] = f"bytes {start}-{total - 1}/{total}"
        if body and type(self).break_after is not None and file.endswith((".bin", ".safetensors")):
            cut, type(self).break_after = type(self).break_after, None
            self._send(code, content[:cut], headers, body, says=len(content))
            self.close_connection = True
            self.connection.close()
            return None
        return self._send(code, content, headers, body)

    def _send(self, code: int, content: bytes, headers: dict[str, str], body: bool, says: int | None = None) -> None:
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(says or len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)
            self.wfile.flush()


def _etag(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    Hub.root = tmp_path_factory.mktemp("hub")
    model = published_model(1)
    write_published(Hub.root / "xinlai" / "LISA-tiny", model, 2)
    write_clip(Hub.root / "openai" / "clip-tiny", model)
    (Hub.root / "xinlai" / "LISA-tiny" / "run_me.py").write_text("raise SystemExit")
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture
def hub(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The local hub in the place of the real one, with an empty cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", server)  # these two are HF_ENDPOINT, once the library is loaded
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # what is kept when a download breaks off
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    Hub.log.clear()
    Hub.break_after = None
    yield tmp_path
    Hub.break_after = None


def test_a_hub_id_is_fetched_once_without_what_is_not_read(hub: Path) -> None:
    folder = fetch("xinlai/LISA-tiny")
    source = Hub.root / "xinlai" / "LISA-tiny"
    names = {file.name for file in folder.iterdir()}
    assert names == {file.name for file in source.iterdir()} - {"run_me.py"}
    assert [name for name in names if (folder / name).read_bytes() != (source / name).read_bytes()] == []
    Hub.log.clear()
    assert fetch(f"xinlai/LISA-tiny@{COMMIT}") == folder
    assert [line for line in Hub.log if line.startswith("GET /xinlai")] == []  # from the cache


def test_a_model_and_a_processor_are_named_alike(hub: Path) -> None:
    """`owner/name@revision` for what loads a model and for what reads its processor, which takes no weights."""
    source = Hub.root / "xinlai" / "ours"
    save(tiny_model(), tiny_processor(), source, replace=True)
    processor = CoresProcessor.from_pretrained(f"xinlai/ours@{REVISION}")
    assert processor.token_ids == tiny_processor().token_ids
    assert not any("model.safetensors" in line for line in Hub.log)
    model, again = load(f"xinlai/ours@{REVISION}", device="cpu")
    assert again.token_ids == processor.token_ids
    assert torch.equal(model.projection[0].weight, tiny_model().projection[0].weight)
    with pytest.raises(CheckpointError, match="it has no revision v9"):
        find("xinlai/ours@v9")
    with pytest.raises(CheckpointError, match="it has no revision v9"):
        CoresProcessor.from_pretrained("xinlai/ours", revision="v9")
    with pytest.raises(CheckpointError, match="not in the hub's cache, and local_files_only is set"):
        CoresProcessor.from_pretrained("nobody/nothing", local_files_only=True)


def test_a_download_that_broke_off_goes_on_where_it_stopped(hub: Path) -> None:
    Hub.break_after = 5000
    with suppress(CheckpointError):  # the library goes on by itself, or else the next call does
        fetch(f"xinlai/LISA-tiny@{REVISION}")
    folder = fetch(f"xinlai/LISA-tiny@{REVISION}")
    resumed = [line for line in Hub.log if "bytes=" in line and line.startswith("GET")]
    assert any(int(line.partition("bytes=")[2].partition("-")[0]) > 0 for line in resumed), Hub.log
    source = Hub.root / "xinlai" / "LISA-tiny"
    for file in source.glob("*.bin"):
        assert (folder / file.name).read_bytes() == file.read_bytes()


def test_what_is_not_there_is_said(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match="nobody/nothing: is no folder here and no repository on the hub"):
        fetch("nobody/nothing")
    with pytest.raises(CheckpointError, match="it has no revision v9"):
        fetch("xinlai/LISA-tiny@v9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="not in the hub's cache, and HF_HUB_OFFLINE is set"):
        fetch("xinlai/LISA-tiny")


def test_a_hub_that_cannot_be_reached_is_said(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fetch("xinlai/LISA-tiny")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)  # between its attempts
    assert fetch("xinlai/LISA-tiny") == folder  # what is in the cache can be had
    with pytest.raises(CheckpointError, match="openai/clip-tiny: .* the hub cannot be reached .*Connection refused"):
        fetch("openai/clip-tiny")


def test_the_command_takes_hub_ids(server: str, tmp_path: Path) -> None:
    environment = {**os.environ, "HF_ENDPOINT": server, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    args = [
        "convert",
        "--from",
        "lisa",
        "--src",
        f"xinlai/LISA-tiny@{REVISION}",
        "--clip",
        "openai/clip-tiny",
        "--quiet",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "cores", *args, "--out", str(tmp_path / "out")],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"xinlai/LISA-tiny@{REVISION} -> {tmp_path / 'out'}" in done.stdout
    assert "base_model" not in (tmp_path / "out" / "README.md").read_text()
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_of_both_kinds_of_weights_one_is_taken() -> None:
    both = ["config.json", "model.safetensors", "pytorch_model.bin", "tf_model.h5", "vocab.json", "a/b.bin", "x.py"]
    assert choose(both) == ["config.json", "model.safetensors", "vocab.json"]
    shards = [
        "pytorch_model-1-of-2.bin",
        "pytorch_model-2-of-2.bin",
        "pytorch_model.bin.index.json",
        "training_args.bin",
    ]
    assert choose(shards) == shards[:3]
    half = ["model.safetensors.index.json", "pytorch_model.bin", "tokenizer.model"]  # an index without its shards
    assert choose(half) == ["pytorch_model.bin", "tokenizer.model"]
