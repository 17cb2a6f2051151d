"""A small bulk run: drawn scenes with their questions, and what is in its way. Without Ray: the plain loop."""

import json
from pathlib import Path
from typing import Any

from PIL import Image

from cores import __version__
from cores.bulk.plan import Settings, digest, held, left_to_do, prepare
from cores.bulk.questions import read_pictures
from cores.bulk.worker import Loading, Worker
from cores.checkpoints.find import find
from cores.checkpoints.runs.fingerprint import fingerprint
from cores.scenes.source import open_scenes


def write_manifest(folder: Path, scenes: int) -> Path:
    """Scenes as pictures and a manifest of their questions, no two about one picture in a row; gives the manifest.

    Among them: a picture that is no picture, one that is missing, and a query that no model may be asked.
    """
    folder.mkdir()
    source, lines = open_scenes("test"), []
    for number in range(scenes):
        scene = source[number]
        assert isinstance(scene.image, Image.Image)
        scene.image.save(folder / f"{number}.png")
        queries = [turn.query for conversation in scene.conversations for turn in conversation.turns]
        lines += [(place, {"image": f"{number}.png", "query": query}) for place, query in enumerate(queries[:3])]
    lines = sorted(lines, key=lambda line: line[0])
    found: list[dict[str, Any]] = [line for _, line in lines]
    (folder / "broken.png").write_bytes((folder / "0.png").read_bytes()[:99])
    found.insert(2, {"image": "broken.png", "queries": ["the cup", "the red thing"]})
    found.insert(5, {"image": "missing.png", "query": "the cup"})
    found.insert(7, {"image": "1.png", "query": "the <image> of a cup"})
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in found))
    return manifest


def settings(pictures: Any, format: str = "jsonl", batch: int = 2, part: int = 2, **others: Any) -> Settings:
    """Settings of a run with the shipped model."""
    weights = fingerprint(find(None))
    values = {
        "model": None,
        "weights": weights,
        "dtype": None,
        "seed": 0,
        "form": None,
        "max_new_tokens": None,
        "quantize": None,
    }
    about = {"cores": __version__, "questions": digest(pictures), "format": format, "batch": batch, "part": part}
    return Settings(**{**about, **values, **others})


def answer_here(manifest: Path, out: Path, **others: Any) -> dict[str, bytes]:
    """The run in this process, part after part; gives its files."""
    pictures = read_pictures([manifest], [])
    asked = settings(pictures, **others)
    with held(out) as home:
        parts = prepare(home, pictures, asked, overwrite=False)
        worker = Worker(home, asked, Loading(threads=1), run="here")
        for part in left_to_do(home, parts, asked):
            worker.do(part.number, part.start, part.length)
    return files(out)


def files(out: Path) -> dict[str, bytes]:
    """The parts' files by their names."""
    return {file.name: file.read_bytes() for file in sorted(out.glob("part-*"))}


def rows(out: Path) -> list[dict[str, Any]]:
    """All rows of JSON lines, in the files' order."""
    return [json.loads(line) for content in files(out).values() for line in content.splitlines()]
