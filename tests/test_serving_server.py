"""A server on a real socket: many clients at once, slow ones, ones that leave, and its end."""

import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

import cores
from cores.cli import main
from cores.scenes.source import open_scenes
from cores.serving.app import create_app
from cores.serving.server import Server, bound
from cores.serving.settings import Settings


@pytest.fixture(scope="module")
def model():
    return cores.load()


@pytest.fixture(scope="module")
def scenes():
    """Pictures as PNG, each with a question of its own."""
    found = []
    for sample in list(open_scenes("test", n=12)):
        file = io.BytesIO()
        sample.image.save(file, "PNG")
        found.append((file.getvalue(), sample.conversations[0].turns[0].query))
    return found


@contextmanager
def serving(model, **settings):
    """A server in a thread of its own; gives itself and its address."""
    wanted = Settings(page=False, **settings)
    with bound("127.0.0.1", 0) as opened:
        server = Server(create_app(model, wanted), wanted)
        thread = threading.Thread(target=server.run, args=([opened],))
        thread.start()
        address = f"http://127.0.0.1:{opened.getsockname()[1]}"
        try:
            ready(address)
            yield server, address
        finally:
            if server.told is None:
                server.handle_exit(signal.SIGTERM, None)
            thread.join(60)
    assert not thread.is_alive()


def ready(address):
    for _ in range(600):
        try:
            if httpx.get(f"{address}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    pytest.fail("it was never ready")


def ask(address, picture, query, path="/v1/segment"):
    files = {"image": ("photo.png", picture, "image/png")}
    return httpx.post(f"{address}{path}", files=files, data={"query": query}, timeout=60)


def test_many_clients_get_each_their_own_answer(model, scenes):
    alone = {query: model.segment(picture, [query])[0].answer for picture, query in scenes}
    with serving(model) as (_, address), ThreadPoolExecutor(16) as clients:
        found = list(clients.map(lambda one: ask(address, *one), scenes * 3))
        counts = httpx.get(f"{address}/metrics").text
    for (_, query), answer in zip(scenes * 3, found, strict=True):
        assert answer.status_code == 200
        (result,) = answer.json()["results"]
        assert (result["query"], result["answer"]) == (query, alone[query])
    batches = float(counts.partition("cores_batch_questions_count ")[2].split()[0])
    assert batches < len(found) / 2, "they were answered together"


def test_a_client_that_leaves_takes_its_request_with_it(model, scenes):
    picture, query = scenes[0]
    with serving(model) as (server, address):
        engine, hold, held = server.config.app.state.engine, threading.Event(), threading.Event()
        work = engine._answer
        engine._answer = lambda jobs: held.set() or hold.wait(30) and work(jobs)
        with ThreadPoolExecutor(2) as clients:
            first = clients.submit(ask, address, picture, query)
            assert held.wait(30)
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(f"{address}/v1/chat", json=body(picture, query), timeout=0.3)
            until(lambda: engine.working == 1)
            hold.set()
            assert first.result().status_code == 200


def body(picture, query):
    return {"image": base64.b64encode(picture).decode(), "query": query}


def until(condition):
    for _ in range(300):
        if condition():
            return
        time.sleep(0.02)
    pytest.fail("it never came to that")


def test_slow_clients_are_left(model):
    with serving(model, head_seconds=0.3, body_seconds=0.3) as (_, address):
        host, port = address.removeprefix("http://").split(":")
        starts = {
            "nothing": b"",
            "half a head": b"GET /healthz HTTP/1.1\r\nHost: x\r\n",
            "a second half": b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /hea",
            "half a body": b"POST /v1/segment HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{",
        }
        for name, start in starts.items():
            with socket.create_connection((host, int(port)), timeout=10) as client:
                client.sendall(start)
                got = b"".join(iter(lambda client=client: client.recv(4096), b""))
                assert {"nothing": got == b"", "half a body": b" 408 " in got}.get(name, True), (name, got)


def test_told_to_stop_it_answers_what_has_begun_and_refuses_what_is_new(model, scenes):
    with serving(model) as (server, address), ThreadPoolExecutor(12) as clients:
        engine, hold = server.config.app.state.engine, threading.Event()
        work = engine._answer
        engine._answer = lambda jobs: hold.wait(30) and work(jobs)
        begun = [clients.submit(ask, address, *one) for one in scenes]
        until(lambda: engine.working == len(scenes))
        server.handle_exit(signal.SIGTERM, None)
        late = ask(address, *scenes[0])
        health = httpx.get(f"{address}/readyz")
        hold.set()
        assert [one.result().status_code for one in begun] == [200] * len(begun)
        assert (late.status_code, health.status_code) == (503, 503)
        assert late.headers["retry-after"]


def test_a_taken_port_and_wrong_flags_are_said_before_a_model_is_loaded(capsys, tmp_path, monkeypatch):
    monkeypatch.delenv("CORES_API_KEY", raising=False)
    with bound("127.0.0.1", 0) as taken:
        taken.listen()
        wrong = {
            ("--port", str(taken.getsockname()[1])): "in use",
            ("--port", "99999"): "--port 99999",
            ("--api-key", " "): "API key is empty",
            ("--api-key-file", str(tmp_path / "none")): "No such file",
            ("--max-body", "0"): "--max-body",
            ("--rate-limit", "nan"): "--rate-limit",
            ("--port", "0", "--allowed-hosts", "https://example.org"): "--allowed-hosts",
        }
        for flags, said in wrong.items():
            assert main(["serve", *flags]) == 2
            assert said in capsys.readouterr().err


@pytest.mark.slow
def test_64_clients_lose_nothing_and_memory_is_bounded():
    script = Path(__file__).parents[1] / "benchmarks" / "serve_load.py"
    done = subprocess.run(
        [sys.executable, script, "--clients", "64", "--seconds", "5"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout
    assert "lost" not in done.stdout


@pytest.mark.slow
def test_the_command_serves_on_this_machine_alone_and_ends_with_0(scenes):
    command = [sys.executable, "-m", "cores", "serve", "--port", "0", "--no-page", "--api-key", "secret"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        address = running.stdout.readline().split()[2]
        port = int(address.rpartition(":")[2])
        assert address.startswith("http://127.0.0.1:")
        ready(address)
        for other in {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), port, socket.AF_INET)} - {
            "127.0.0.1"
        }:
            with pytest.raises(OSError, match="refused|unreachable|timed out"):
                socket.create_connection((other, port), timeout=1)
        assert ask(address, *scenes[0]).status_code == 401
        assert httpx.get(f"{address}/docs", headers={"Host": f"evil.example:{port}"}).status_code == 421
        key = {"Authorization": "Bearer secret"}
        told = httpx.post(f"{address}/v1/chat", json=body(*scenes[0]), headers=key, timeout=60).text
        assert json.loads(told.partition("event: result\ndata: ")[2])["query"] == scenes[0][1]
        os.kill(running.pid, signal.SIGTERM)
        _, err = running.communicate(timeout=60)
    assert running.returncode == 0
    assert "Traceback" not in err
