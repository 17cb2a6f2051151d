"""Bulk runs without Ray: what is asked, how it is cut, and what a worker makes of it, whatever is in its way.

tests/test_bulk_ray.py has the workers of `cores predict --engine ray` and their kills.
"""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bulk_run import answer_here, files, rows, settings, write_manifest

from cores.bulk import worker as worker_module
from cores.bulk.deaths import ALONE, GIVEN_UP, Batch, Deaths
from cores.bulk.plan import HOME, WORKING, held, left_to_do, part_file, prepare, read_part
from cores.bulk.questions import read_pictures
from cores.bulk.rows import tally
from cores.bulk.worker import DIED, Loading, Worker
from cores.cli import main
from cores.data.formats.names import as_asked
from cores.data.sample import Conversation, Sample, Turn
from cores.data.sources import open_source
from cores.errors import DataError, UserError
from cores.evaluation.predictions import Predictions
from cores.evaluation.sample_asker import questions_of
from cores.inference.facade import load
from cores.masks import decode, encode

SCENES = 4


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bulk")


@pytest.fixture(scope="module")
def manifest(place: Path) -> Path:
    return write_manifest(place / "in", SCENES)


@pytest.fixture(scope="module")
def out(place: Path, manifest: Path) -> Path:
    """A whole run."""
    answer_here(manifest, place / "out")
    return place / "out"


def test_a_row_out_for_every_row_in_and_what_is_poisoned_costs_itself_only(manifest: Path, out: Path) -> None:
    asked = []
    for line in map(json.loads, manifest.read_text().splitlines()):
        asked += [(line["image"], query) for query in line.get("queries", [line.get("query")])]
    found = {row["row"]: row for row in rows(out)}
    assert sorted(found) == list(range(len(asked)))
    assert len(rows(out)) == len(asked)
    assert [(found[n]["image"], found[n]["query"]) for n in range(len(asked))] == asked
    wrong = {(row["image"], row["query"]): row["error"] for row in rows(out) if row["status"] == "error"}
    assert wrong.keys() == {
        ("broken.png", "the cup"),
        ("broken.png", "the red thing"),
        ("missing.png", "the cup"),
        ("1.png", "the <image> of a cup"),
    }
    assert "damaged" in wrong["broken.png", "the cup"]
    assert "no such file" in wrong["missing.png", "the cup"]
    assert all(row["masks"] is None and row["answer"] is None for row in rows(out) if row["error"])


def test_answers_are_those_of_segment(manifest: Path, out: Path) -> None:
    cores = load()
    for row in [row for row in rows(out) if not row["error"]][:6]:
        (found,) = cores.segment(manifest.parent / row["image"], [row["query"]])
        assert (row["answer"], row["status"], row["size"]) == (found.answer, found.status, list(found.size))
        assert row["refusal"] == pytest.approx(found.refusal, abs=1e-4)
        assert row["confidences"] == pytest.approx([target.confidence for target in found.targets], abs=1e-4)
        assert row["score"] == pytest.approx(found.score, abs=1e-4)
        for target, mask in zip(found.targets, row["masks"], strict=True):
            assert (target.mask != decode(mask)).mean() < 1e-3, "batches differ by rounding only"


def test_parquet_holds_the_same_rows(manifest: Path, out: Path, tmp_path: Path) -> None:
    answer_here(manifest, tmp_path / "out", format="parquet")
    lines = sorted(out.glob("part-*"))
    tables = sorted((tmp_path / "out").glob("part-*"))
    assert [file.stem for file in tables] == [file.stem for file in lines]
    assert [row for file in tables for row in pq.read_table(file).to_pylist()] == rows(out)
    assert list(map(tally, tables)) == list(map(tally, lines))
    found = Predictions.read(out).found
    assert len(found) == len(rows(out))
    assert Predictions.read(tmp_path / "out").found == found, "as an evaluation reads them"
    assert Predictions.read(tables[0]).found.items() <= found.items()
    assert "damaged" in found["broken.png", "the cup"].masks


def test_images_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    full, none = encode(np.ones((2, 3), bool)), encode(np.zeros((2, 3), bool))
    lines = [{"image": f"{folder}/x.png", "masks": [full if folder == "../a" else none]} for folder in ("../a", "b")]
    (tmp_path / "peer.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = Predictions.read(tmp_path / "peer.jsonl")

    def of(path: str) -> bool:
        sample = Sample(Path(path), (2, 3), (Conversation((Turn("q"),)),))
        (question,) = questions_of(sample)
        (rle,) = found.of(sample, question, True).masks
        return bool(decode(rle).all())

    assert [of("/data/a/x.png"), of("b/x.png")] == [True, False]
    with pytest.raises(DataError, match="there is no prediction"):
        of("/data/x.png")


def test_inputs_of_every_kind_are_rows_in_their_order(tmp_path: Path) -> None:
    lines = [
        {"image": "x/a.png", "query": "cup"},
        {"image": "b.png"},
        {"image": "./x/a.png", "queries": ["pan", "lid"]},
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "tables").mkdir()
    table = pa.table({"image": ["../x/a.png", "c.png"], "query": ["knife", None]})
    pq.write_table(table, tmp_path / "tables" / "1.parquet")
    found = read_pictures([tmp_path / "m.jsonl", tmp_path / "tables", tmp_path / "b.png"], ["all", "more"])
    asked = [(row, one.file, query) for one in found for row, query in zip(one.rows, one.queries, strict=True)]
    a, b, c = (str(tmp_path / name) for name in ("x/a.png", "b.png", "tables/c.png"))
    wanted = [(a, "cup"), (b, "all"), (b, "more"), (a, "pan"), (a, "lid"), (a, "knife"), (c, "all"), (c, "more")]
    wanted += [(b, "all"), (b, "more")]
    assert sorted(asked) == [(row, *pair) for row, pair in enumerate(wanted)]
    assert [picture.file for picture in found] == [a, b, c], "each picture once"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"query": "cup"}, "line 2: the field 'image' is missing"),
        ({"image": 3, "query": "cup"}, "line 2: image: found 3"),
        ({"image": "a.png"}, "line 2: has neither query nor queries"),
        ({"image": "a.png", "queries": "cup"}, "line 2: queries: found 'cup', expected a list"),
        ({"image": "a.png", "query": " "}, "line 2: query: one of its texts is empty"),
        ([], "line 2: found []"),
    ],
)
def test_a_line_that_asks_nothing_is_named(tmp_path: Path, line: Any, message: str) -> None:
    (tmp_path / "m.jsonl").write_text('{"image": "a.png", "query": "cup"}\n' + json.dumps(line))
    with pytest.raises(DataError, match=re.escape(message)):
        read_pictures([tmp_path / "m.jsonl"], [])


@pytest.mark.parametrize("column", ["bytes", "struct", "files"])
def test_pictures_inside_of_a_table_are_asked_as_their_files_are(
    manifest: Path, out: Path, tmp_path: Path, column: str
) -> None:
    """`files`: Hugging Face's struct where it holds a path alone."""
    folder, found = manifest.parent, []
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    lines = [line for line in lines if line["image"][0].isdecimal() and "<" not in line["query"]]
    table = tmp_path / "table.parquet"
    for line in lines:
        content = (folder / line["image"]).read_bytes()
        path = str(folder / line["image"])
        cells = {"bytes": content, "struct": {"bytes": content, "path": line["image"]}}
        found.append(cells.get(column, {"bytes": None, "path": path}))
    kind = pa.binary() if column == "bytes" else pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {"image": pa.array([*found, None], kind), "query": [*(line["query"] for line in lines), "the cup"]}
    pq.write_table(pa.table(columns), table, row_group_size=3)
    answer_here(table, tmp_path / "out")
    *answered, empty = rows(tmp_path / "out")
    told = {(row["image"], row["query"]): row for row in rows(out)}
    for line, row in zip(lines, answered, strict=True):
        plain = told[line["image"], line["query"]]
        assert {name: row[name] for name in ("answer", "status", "size", "error")} == {
            name: plain[name] for name in ("answer", "status", "size", "error")
        }
        for mask, other in zip(row["masks"], plain["masks"], strict=True):
            assert (decode(mask) != decode(other)).mean() < 1e-3, "batches differ by rounding only"
    names = {"bytes": "table.parquet: row 0", "struct": lines[0]["image"]}
    assert answered[0]["image"] == names.get(column, str(folder / lines[0]["image"]))
    assert "image: is empty" in empty["error"]
    assert main(["label", "--from", str(tmp_path / "out"), "--out", str(tmp_path / "labels")]) == 0
    assert len(list((tmp_path / "labels").glob("*.json"))) == len(lines)
    assert len(list((tmp_path / "labels").glob("*.png"))) == len(lines)


def test_a_line_says_its_form_as_in_the_plain_loop(manifest: Path, tmp_path: Path) -> None:
    query, forms = "the cup", [None, "explain", "raw", "explain"]
    lines = [{"image": str(manifest.parent / "0.png"), "query": query, "form": form} for form in forms]
    lines[3]["query"] = "the pan"
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    answer_here(tmp_path / "m.jsonl", tmp_path / "out", form="sentence")
    alone = [
        load().segment(line["image"], [line["query"]], form or "sentence")[0]
        for line, form in zip(lines, forms, strict=True)
    ]
    assert len({found.answer for found in alone[:3]}) > 1
    assert [row["answer"] for row in rows(tmp_path / "out")] == [found.answer for found in alone]
    command = ["predict", "--queries", str(tmp_path / "m.jsonl"), "--form", "sentence", "--format", "json", "--quiet"]
    assert main([*command, "--out", str(tmp_path / "plain")]) == 0
    told = [json.loads((tmp_path / "plain" / f"0{own}.json").read_text()) for own in (".q1", ".q2", ".q3", ".q4")]
    assert [one["answer"] for one in told] == [found.answer for found in alone]
    (tmp_path / "m.jsonl").write_text('{"image": "a.png", "query": "cup", "form": "song"}')
    with pytest.raises(DataError, match="line 1: form: found 'song', expected phrase"):
        read_pictures([tmp_path / "m.jsonl"], [])


def test_the_same_run_goes_on_and_another_is_refused(manifest: Path, out: Path, tmp_path: Path) -> None:
    pictures = read_pictures([manifest], [])
    asked = settings(pictures)
    shutil.copytree(out, tmp_path / "out")
    part_file(tmp_path / "out" / HOME, 1, asked).unlink()
    with held(tmp_path / "out") as home:
        parts = prepare(home, pictures, asked, overwrite=False)
        assert [part.number for part in left_to_do(home, parts, asked)] == [1]
        assert read_part(home, parts[1].start, parts[1].length) == pictures[2:4]
        with pytest.raises(UserError, match="another run writes into it"), held(tmp_path / "out"):
            pass
        with pytest.raises(UserError, match="form: None, now 'phrase'"):
            prepare(home, pictures, replace(asked, form="phrase"), overwrite=False)
        assert len(files(tmp_path / "out")) == len(parts) - 1, "nothing was touched"
        parts = prepare(home, pictures[:3], settings(pictures[:3], part=3), overwrite=True)
        assert len(parts) == 1
        assert not files(tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with held(tmp_path / "mine") as home, pytest.raises(UserError, match="exists already"):
        prepare(home, pictures, asked, overwrite=False)


class Killed(BaseException):
    """Stands for the end of a worker's process."""


@pytest.mark.parametrize("at", ["opened", "asked"])
def test_a_picture_that_kills_its_worker_is_given_up_and_no_other(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    pictures = [picture for picture in read_pictures([manifest], []) if picture.image[0].isdecimal()]
    poison = pictures[2]
    asked = settings(pictures, part=100)
    with held(tmp_path / "out") as home:
        (part,) = prepare(home, pictures, asked, overwrite=False)
        worker = Worker(home, asked, Loading(threads=1), run="one")
        worker.do(*part[:3])
        whole = rows(tmp_path / "out")
        part_file(home, 0, asked).unlink()
        name = "open_of" if at == "opened" else "segment_mixed"
        real, said = getattr(worker_module, name), [(query, None) for query in poison.queries]

        def killing(first: Any, *others: Any) -> Any:
            if first == poison or (others and said in others[1]):
                raise Killed
            return real(first, *others)

        monkeypatch.setattr(worker_module, name, killing)
        for _ in range(GIVEN_UP):
            with pytest.raises(Killed):
                worker.do(*part[:3])
        worker.do(*part[:3])
        assert not list((home / WORKING).iterdir())
    for row, before in zip(rows(tmp_path / "out"), whole, strict=True):
        if row["image"] == poison.image:
            assert row["error"] == DIED
        else:
            assert [row[key] for key in ("row", "answer", "error")] == [
                before[key] for key in ("row", "answer", "error")
            ]


def test_deaths_of_another_run_do_not_count_and_one_death_changes_no_batch(tmp_path: Path) -> None:
    note = tmp_path / "note"
    Deaths(note, "a").asking([0, 1])
    assert Deaths(note, "b").counts == {}
    again = Deaths(note, "a")
    assert again.batches(4, 2) == [Batch([0, 1], False), Batch([2, 3], False)]
    again.asking([0, 1])
    again = Deaths(note, "a")
    assert again.counts == {0: ALONE, 1: ALONE}
    assert again.batches(4, 2) == [Batch([0], True), Batch([1], True), Batch([2, 3], False)]
    again.asking([1])
    assert Deaths(note, "a").batches(4, 2) == [Batch([0], True), Batch([2, 3], False)]


def test_rows_of_what_is_absent_become_flags(manifest: Path, tmp_path: Path) -> None:
    source = open_source("scenes|test", None)
    turns = [turn for conversation in source[1].conversations for turn in conversation.turns]
    query = next(turn.query for turn in turns if turn.form in ("phrase", "sentence") and not turn.targets)
    asked = manifest.parent / "absent.jsonl"
    asked.write_text(json.dumps({"image": "1.png", "query": query}))
    answer_here(asked, tmp_path / "out")
    assert [row["status"] for row in rows(tmp_path / "out")] == ["absent"]
    assert main(["label", "--from", str(tmp_path / "out"), "--out", str(tmp_path / "labels")]) == 0
    label = json.loads((tmp_path / "labels" / "1.json").read_text())
    assert (label["shapes"], label["flags"]) == ([], {f"absent: {query}": False})


def test_rows_become_the_labels_that_asking_gives(
    manifest: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["label", "--from", str(out), "--out", str(tmp_path / "labels"), "--tolerance", "0"]) == 0
    said = capsys.readouterr()
    assert f"{SCENES} pictures" in said.out
    assert said.err.count("left out: broken.png") == 2
    source = open_source("labelme:labels", tmp_path)
    found = {}
    for sample in (source[number] for number in range(len(source))):
        assert isinstance(sample.image, Path)
        for turn in (turn for conversation in sample.conversations for turn in conversation.turns):
            found[sample.image.name, turn.query] = decode(turn.targets[0].mask)
    for row in rows(out):
        drawn = [decode(mask) for mask in row["masks"] or [] if decode(mask).any()]
        if drawn:
            label = found[row["image"], as_asked(row["query"], "")]
            assert np.array_equal(label, np.logical_or.reduce(drawn))


def test_a_finished_run_is_only_counted(
    manifest: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["predict", "--engine", "ray", str(manifest), "--out", str(out), "--batch", "2", "--quiet"]
    assert main([*command, "--part", "2"]) == 0
    assert capsys.readouterr().out.startswith(f"{len(rows(out))} rows in {out}: ")
    assert main([*command, "--part", "4"]) == 2
    assert "part: 2, now 4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["no.jsonl"], "no.jsonl: there is no such file"),
        (["IN", "no.parquet"], "no.parquet: there is no such file"),
        (["IN", "--workers", "0"], "--workers 0: expected a number from 1"),
        (["IN", "--device", "cuda:1"], "--device cuda:1: expected cpu or cuda"),
        (["IN", "--query", " "], "QUERY is empty"),
        (["IN", "--model", "no/where/at/all"], "there is no such folder"),
        (["PICTURES"], "what is asked about it?"),
    ],
)
def test_what_cannot_be_run_is_said_before_ray_is_started(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    names = {"IN": str(manifest), "PICTURES": str(manifest.parent)}
    inputs = [names.get(flag, flag) for flag in flags]
    assert main(["predict", "--engine", "ray", *inputs, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
