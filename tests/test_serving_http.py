"""The HTTP interface: answers as the model gives them, every mistake and attack met by one clear sentence."""

import asyncio
import base64
import io
import json
import re

import httpx
import pytest
from PIL import Image

import cores
from cores.masks import decode
from cores.scenes.source import open_scenes
from cores.serving.app import create_app
from cores.serving.guard import _Answer
from cores.serving.leaving import Left
from cores.serving.settings import Settings


@pytest.fixture(scope="module")
def model():
    return cores.load()


@pytest.fixture(scope="module")
def scene():
    """A picture as PNG, and a question about it whose answer is a mask."""
    sample = open_scenes("test", n=4)[3]
    file = io.BytesIO()
    sample.image.save(file, "PNG")
    turns = [one.turns[0] for one in sample.conversations]
    return file.getvalue(), next(turn.query for turn in turns if turn.targets)


def asked(model, work, settings=None):
    """Run `work(client)` against a ready application."""

    async def run():
        app = create_app(model, settings or Settings(page=False))
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as client,
        ):
            while (await client.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.01)
            return await work(client)

    return asyncio.run(run())


def upload(picture, **fields):
    return {"files": {"image": ("photo.png", picture, "image/png")}, "data": fields}


def events(text):
    found = re.findall(r"event: (\w+)\ndata: (.*)\n\n", text)
    return [(name, json.loads(data)) for name, data in found]


def test_json_and_form_give_what_the_model_answers(model, scene):
    picture, query = scene
    (alone,) = model.segment(picture, [query])
    formats = ["overlay", "png", "labelme"]

    async def work(client):
        image = base64.b64encode(picture).decode()
        as_json = {"image": f"data:image/png;base64,{image}", "queries": [query], "formats": formats}
        return (
            await client.post("/v1/segment", **upload(picture, query=query, formats=formats)),
            await client.post("/v1/segment", json={**as_json, "name": "photo.png"}),
        )

    form, sent = asked(model, work)
    assert form.status_code == sent.status_code == 200, form.text
    assert form.json() == sent.json()
    (found,) = form.json()["results"]
    assert (found["answer"], found["status"]) == (alone.answer, "segmented")
    assert (decode(found["mask"]) == alone.mask).all()
    overlay = Image.open(io.BytesIO(base64.b64decode(found["overlay"])))
    assert overlay.size[0] == alone.size[1]
    level = found["targets"][0]["levels"][-1]
    drawn = Image.open(io.BytesIO(base64.b64decode(level["png"])))
    assert (alone.targets[0].mask == drawn).all()
    assert found["labelme"]["imagePath"] == "photo.png"
    assert found["labelme"]["shapes"]


def test_options_are_as_in_python(model, scene):
    picture, query = scene
    (alone,) = model.segment(picture, [query], chain="constrained", threshold=0.9, fill_holes=True)

    async def work(client):
        options = {"chain": "constrained", "threshold": "0.9", "fill_holes": "true"}
        image = {"image": base64.b64encode(picture).decode(), "queries": [query]}
        return [
            await client.post("/v1/segment", **upload(picture, query=query, **options)),
            await client.post(
                "/v1/segment", json={**image, "chain": "constrained", "threshold": 0.9, "fill_holes": True}
            ),
            await client.post("/v1/segment", json={**image, "threshold": 1}),
        ]

    form, sent, wrong = asked(model, work)
    assert form.json() == sent.json()
    assert (decode(form.json()["results"][0]["mask"]) == alone.mask).all()
    assert wrong.status_code == 422


def test_reasons_and_cut_answers_are_as_in_python(model, scene):
    picture, query = scene
    (told,) = model.segment(picture, [query], explain=True)
    (cut,) = model.segment(picture, [query], max_seconds=0)
    (whole,) = model.segment(picture, [query])
    assert len({told.answer, cut.answer, whole.answer}) == 3

    async def work(client):
        image = {"image": base64.b64encode(picture).decode(), "queries": [query]}
        wanted = [{"explain": True}, {"max_seconds": 0}, {"max_seconds": 1000.5}, {}]
        sent = await asyncio.gather(*(client.post("/v1/segment", json={**image, **own}) for own in wanted))
        form = await client.post("/v1/segment", **upload(picture, query=query, explain="true", max_seconds="60"))
        wrong = [{"explain": True, "form": "phrase"}, {"max_seconds": -1}, {"max_seconds": True}, {"explain": 1}]
        return sent, form, [await client.post("/v1/segment", json={**image, **own}) for own in wrong]

    sent, form, wrong = asked(model, work)
    found = [(one["answer"], one["cut"]) for answer in (*sent, form) for one in answer.json()["results"]]
    expected = [told, cut, whole, whole, told]
    assert found == [(one.answer, one.cut) for one in expected]
    assert [answer.status_code for answer in wrong] == [422] * len(wrong)


def test_chat_tells_the_words_then_the_masks(model, scene):
    picture, query = scene
    told = asked(model, lambda client: client.post("/v1/chat", **upload(picture, query=query)))
    *texts, (name, found) = events(told.text)
    assert told.headers["content-type"].startswith("text/event-stream")
    assert {name for name, _ in texts} == {"text"}
    assert "".join(piece["text"] for _, piece in texts) == found["answer"]
    assert name == "result"
    assert found["targets"]


def bomb(mode, size):
    file = io.BytesIO()
    Image.new(mode, size).save(file, "PNG")
    return file.getvalue()


def animated():
    file = io.BytesIO()
    frames = [Image.new("P", (40, 30), n) for n in range(3)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


def test_odd_pictures_are_answered_or_refused_in_a_sentence(model, scene):
    picture, query = scene
    odd = {
        "wide": bomb("RGBA", (3000, 1)),
        "bits": bomb("I;16", (40, 30)),
        "palette": bomb("P", (9, 9)),
        "gif": animated(),
    }
    wrong = {
        "bomb": bomb("1", (20_000, 20_000)),
        "nothing": b"",
        "text": b"hello",
        "cut": picture[:300],
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    }

    async def work(client):
        good = {name: await client.post("/v1/segment", **upload(one, query=query)) for name, one in odd.items()}
        bad = {name: await client.post("/v1/segment", **upload(one, query=query)) for name, one in wrong.items()}
        return good, bad

    good, bad = asked(model, work)
    assert {name: one.status_code for name, one in good.items()} == dict.fromkeys(odd, 200)
    assert good["gif"].json()["results"][0]["size"] == [30, 40]
    for name, one in bad.items():
        assert one.status_code == 422, name
        assert set(one.json()) == {"error"}
        assert not re.search(r"[/\\]\w+[/\\]|Traceback|0x[0-9a-f]{6}|BytesIO", one.text), one.text


def test_wrong_requests_are_refused_in_a_sentence(model, scene):
    picture, query = scene
    image = base64.b64encode(picture).decode()
    wrong = [
        (422, {"json": {"image": image}}),
        (422, {"json": {"image": image, "queries": []}}),
        (422, {"json": {"image": image, "queries": "cup"}}),
        (422, {"json": {"image": image, "queries": ["  "]}}),
        (422, {"json": {"image": image, "queries": ["x" * 10_000]}}),
        (422, {"json": {"image": image, "queries": [query] * 17}}),
        (422, {"json": {"image": image, "queries": [query], "max_new_tokens": True}}),
        (422, {"json": {"image": image, "queries": [query], "max_new_tokens": 0}}),
        (422, {"json": {"image": image, "queries": [query], "path": "/etc/passwd"}}),
        (422, {"json": {"image": "/etc/passwd", "queries": [query]}}),
        (422, {"json": {"image": "http://127.0.0.1/", "queries": [query]}}),
        (422, {"json": [1, 2]}),
        (
            422,
            {"content": b'{"image": "aaaa", "queries": ["\\ud800"]}', "headers": {"content-type": "application/json"}},
        ),
        (422, {"json": {"image": image, "queries": ["\x00\x1b"]}}),
        (422, {"content": b"{", "headers": {"content-type": "application/json"}}),
        (422, {"content": b"[" * 100_000, "headers": {"content-type": "application/json"}}),
        (422, {"data": {"image": "no file", "query": query}, "files": {"other": b"x"}}),
        (400, {"content": b"nonsense", "headers": {"content-type": "multipart/form-data; boundary=x"}}),
        (400, {"content": b"nonsense", "headers": {"content-type": "multipart/form-data"}}),
        (415, {"content": b"image", "headers": {"content-type": "image/png"}}),
        (415, {}),
        (422, upload(picture, query="x" * 10_000)),
        (422, upload(picture, query=query, max_new_tokens="-1")),
        (422, upload(picture, query=query, form=["raw", "raw"])),
    ]

    async def work(client):
        return [await client.post("/v1/segment", **request) for _, request in wrong]

    for (status, _), found in zip(wrong, asked(model, work), strict=True):
        assert found.status_code == status, found.text
        assert set(found.json()) == {"error"}
        assert len(found.json()["error"]) < 1000
        assert "Traceback" not in found.text


def test_names_of_files_are_names(model, scene):
    picture, query = scene
    names = ["../../etc/passwd", r"C:\windows\x.png", "<script>.png", "..", "a\x00b.png", "ü 1.jpg"]

    async def work(client):
        found = []
        for name in names:
            files = {"image": (name, picture, "image/png")}
            found.append(await client.post("/v1/segment", files=files, data={"query": query, "formats": "labelme"}))
        return [one.json()["results"][0]["labelme"]["imagePath"] for one in found]

    said = asked(model, work)
    assert said[0] == "passwd"
    assert not any(re.search(r"[/\\<>\x00]|^\.", name) for name in said)


def test_a_body_is_cut_off_at_its_limit_whatever_its_headers_say(model, scene):
    sent = 0

    async def endless():
        nonlocal sent
        while True:
            sent += 65536
            yield b"x" * 65536

    async def work(client):
        claimed = await client.post(
            "/v1/segment", content=b"x" * 2_000_000, headers={"content-type": "application/json"}
        )
        streamed = await client.post("/v1/segment", content=endless(), headers={"content-type": "application/json"})
        return claimed, streamed

    claimed, streamed = asked(model, work, Settings(max_body=1 << 20, page=False))
    assert claimed.status_code == streamed.status_code == 413
    assert sent < 2 << 20


def test_slow_bodies_and_slow_answers_end(model, scene):
    picture, query = scene

    async def slow():
        yield b"{"
        await asyncio.sleep(30)

    async def work(client):
        return await client.post("/v1/segment", content=slow(), headers={"content-type": "application/json"})

    assert asked(model, work, Settings(body_seconds=0.2, page=False)).status_code == 408
    late = asked(
        model,
        lambda client: client.post("/v1/segment", **upload(picture, query=query)),
        Settings(answer_seconds=0.0, page=False),
    )
    assert late.status_code == 504


def test_an_answer_that_takes_too_long_ends_in_an_event(model, scene, monkeypatch):
    picture, query = scene

    async def slow(engine, *_):
        yield "Sure, it"
        await asyncio.sleep(30)

    monkeypatch.setattr("cores.serving.engine.Engine.stream", slow)
    late = asked(
        model,
        lambda client: client.post("/v1/chat", **upload(picture, query=query)),
        Settings(answer_seconds=0.3, page=False),
    )
    assert [name for name, _ in events(late.text)] == ["text", "error"]
    assert "within 0.3 s" in events(late.text)[-1][1]["error"]


def test_beside_the_page_what_is_not_there_is_refused_in_the_same_form(model, scene):
    async def work(client):
        wanted = (("GET", "segment"), ("PUT", "chat"), ("POST", "segment/"), ("POST", "segments"))
        return [await client.request(method, f"/v1/{path}") for method, path in wanted]

    found = asked(model, work, Settings())
    assert [one.status_code for one in found] == [405, 405, 404, 404]
    assert [one.headers.get("allow") for one in found] == ["POST", "POST", None, None]
    assert all(list(one.json()) == ["error"] for one in found)


def test_what_is_too_much_is_refused_and_who_does_not_read_is_left(model, scene):
    picture, query = scene
    full = asked(
        model,
        lambda client: client.post("/v1/segment", **upload(picture, query=query)),
        Settings(max_requests=0, page=False),
    )
    assert full.status_code == 503
    assert full.headers["retry-after"]

    async def unread():
        answer = _Answer(lambda message: asyncio.sleep(30), "/", 0.05)
        with pytest.raises(Left):
            await answer.send({"type": "http.response.body", "body": b"x"})

    asyncio.run(unread())


def test_keys_are_asked_for_everywhere_but_for_health(model, scene):
    picture, query = scene
    request = upload(picture, query=query)
    password = base64.b64encode(b"me:secret").decode()

    async def work(client):
        ask = "/v1/segment"
        return {
            "none": await client.post(ask, **request),
            "wrong": await client.post(ask, **request, headers={"x-api-key": "secre"}),
            "latin": await client.post(ask, **request, headers={"x-api-key": b"\xff\xfe"}),
            "basic": await client.post(ask, **request, headers={"authorization": b"Basic \xc3\xa9"}),
            "not ASCII": await client.post(ask, **request, headers={"x-api-key": "schlüssel".encode()}),
            "page": await client.get("/docs"),
            "health": await client.get("/healthz"),
            "bearer": await client.post(ask, **request, headers={"authorization": "Bearer secret"}),
            "header": await client.post(ask, **request, headers={"x-api-key": "other"}),
            "browser": await client.get("/docs", headers={"authorization": f"Basic {password}"}),
        }

    found = asked(model, work, Settings(api_keys=("secret", "other", "schlüssel"), page=False))
    codes = {name: one.status_code for name, one in found.items()}
    assert codes == {
        "none": 401, "wrong": 401, "latin": 401, "basic": 401, "page": 401,
        "not ASCII": 200, "health": 200, "bearer": 200, "header": 200, "browser": 200,
    }  # fmt: skip
    assert found["page"].headers["www-authenticate"].startswith("Basic")


def test_a_page_that_lets_its_own_name_point_here_gets_no_answer(model, scene):
    picture, query = scene
    own = ["localhost", "LocalHost:8000", "127.0.0.1:8000", "127.1.2.3", "[::1]:8000", "lens.example:1"]
    foreign = [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "10.0.0.7",
        ":1",
    ]

    async def work(client):
        async def status(host, path, **posted):
            send = client.post if posted else client.get
            return (await send(path, headers={"Host": host}, **posted)).status_code

        return (
            [await status(host, "/v1/segment", **upload(picture, query=query)) for host in (own[0], *foreign)],
            [await status(host, "/docs") for host in (*own, *foreign)],
            [await status(host, "/healthz") for host in (*own, *foreign)],
        )

    posted, read, alive = asked(model, work, Settings(page=False, hosts=("lens.example", "localhost")))
    assert posted == [200] + [421] * len(foreign)
    assert read == [200] * len(own) + [421] * len(foreign)
    assert set(alive) == {200}, "who watches a server knows its address alone"


def test_rates_are_kept(model, scene):
    picture, query = scene

    async def work(client):
        return [await client.post("/v1/segment", **upload(picture, query=query)) for _ in range(4)]

    found = asked(model, work, Settings(rate=3, page=False))
    assert [one.status_code for one in found] == [200, 200, 200, 429]
    assert 0 < int(found[3].headers["retry-after"]) <= 20


def test_a_fault_of_ours_is_kept_from_the_client(model, scene, monkeypatch):
    picture, query = scene

    async def work(client):
        monkeypatch.setattr("cores.serving.app.rendered", lambda *args: 1 / 0)
        return await client.post("/v1/segment", **upload(picture, query=query))

    found = asked(model, work)
    assert found.status_code == 500
    assert "division" not in found.text
    assert set(found.json()) == {"error"}


def test_every_answer_has_its_security_headers(model):
    async def work(client):
        return [await client.get(path) for path in ("/docs", "/nowhere", "/v1/segment", "/metrics", "/openapi.json")]

    found = asked(model, work)
    assert [one.status_code for one in found] == [200, 404, 405, 200, 200]
    assert all(one.headers["x-content-type-options"] == "nosniff" for one in found)
    assert "cores_requests_total" in found[3].text
    for tag in ("src=", "http://fonts", "cdn", "<script"):
        assert tag not in found[0].text, "the reference needs nothing from elsewhere"
    assert "query=&#x27;the handle of the cup&#x27; http://localhost/v1/segment" in found[0].text
