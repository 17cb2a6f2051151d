"""`cores data dump`, `check` and `show` as commands: lines by contract, findings by name, exit codes."""

import json
import logging
import os

import numpy as np
import pytest
from data_files import rows, say, square, write_map, write_pair, write_picture, write_records
from PIL import Image

from cores.cli import main
from cores.cli.terminal import escaped_output, printable
from cores.data.inspect.doctor import examine
from cores.masks import decode, encode


def dump(root, name, *more):
    out = root / "out.jsonl"
    assert main(["data", "dump", name, "--data", str(root), "--out", str(out), "--overwrite", "--quiet", *more]) == 0
    return [json.loads(line) for line in out.read_text("utf-8").splitlines()]


def test_a_line_has_every_field_in_order(tmp_path):
    told = tmp_path / "reason_seg" / "ReasonSeg" / "explanatory" / "train.json"
    write_pair(tmp_path, "a", texts=["Café?", "y"], shapes=[square(0, 0, 5, 5), square(3, 3, 5, 5, "ignore")])
    told.parent.mkdir()
    told.write_text(json.dumps([{"image": "a.jpg", "query": "", "outputs": "So."}]))
    (line,) = dump(tmp_path, "ReasonSeg|train")
    assert list(line) == ["image", "size", "split", "queries", "conversations", "ignore", "answers"]
    assert list(line["queries"][0]) == ["text", "is_sentence", "category", "targets"]
    assert line["image"] == "reason_seg/ReasonSeg/train/a.jpg"
    assert (line["size"], line["split"], line["answers"], line["conversations"]) == ([20, 30], "train", ["So."], [])
    assert [(q["text"], q["is_sentence"], q["category"]) for q in line["queries"]] == [
        ("Café?", True, None),
        ("y", True, None),
    ]
    target, ignore = line["queries"][0]["targets"][0], line["ignore"]
    assert isinstance(target["counts"], str)
    assert target["size"] == [20, 30]
    assert (decode(target).sum(), decode(ignore).sum()) == (27, 9)
    write_map(tmp_path, "ade20k", rows(1, 150))
    (line,) = dump(tmp_path, "ade20k")
    assert [(q["text"], q["category"], q["is_sentence"]) for q in line["queries"]] == [
        ("wall", "wall", False),
        ("flag", "flag", False),
    ]
    assert line["ignore"] is None


def test_lines_are_sorted_by_bytes_and_a_line_has_all_records_of_its_image(tmp_path):
    for name in ("b", "a", "Z", "é"):
        write_pair(tmp_path, name, "val")
    write_pair(tmp_path, "a", "train")
    found = [line["image"].split("/", 2)[2] for line in dump(tmp_path, "ReasonSeg|val_train")]
    assert found == ["train/a.jpg", "val/Z.jpg", "val/a.jpg", "val/b.jpg", "val/é.jpg"]
    write_records(tmp_path, say("<image>\nq", "a"), say("x", "r", "s", first="gpt"))
    (line,) = dump(tmp_path, "llava_instruct_150k")
    assert line["conversations"] == [
        [{"role": "user", "text": "q"}, {"role": "assistant", "text": "a"}],
        [{"role": "user", "text": "r"}, {"role": "assistant", "text": "s"}],
    ]
    assert line["queries"] == []


def test_nothing_is_half_written_and_nothing_overwritten(tmp_path, capsys):
    write_pair(tmp_path, "a")
    folder = write_pair(tmp_path, "b")
    (folder / "b.json").write_text("{")
    command = [
        "data",
        "dump",
        "ReasonSeg|train",
        "--data",
        str(tmp_path),
        "--out",
        str(tmp_path / "new" / "o"),
        "--quiet",
    ]
    assert main(command) == 2
    assert "b.json: is no JSON" in capsys.readouterr().err
    assert not list((tmp_path / "new").iterdir())
    assert len(dump(tmp_path, "ReasonSeg|train", "--on-bad", "skip")) == 1
    assert main([*command[:-2], str(tmp_path / "out.jsonl")]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["data", "dump", "scenes|test", "--out", str(tmp_path / "s")]) == 2
    assert "write it with `cores scenes write` first" in capsys.readouterr().err


def test_check_names_every_fault(tmp_path, capsys):
    for n in range(3):
        write_pair(tmp_path, f"good{n}", texts=[f"Where is number {n}?"], shapes=[square(0, 0, 5, 5)])
    folder = write_pair(tmp_path, "alone")
    (folder / "alone.json").unlink()
    (write_pair(tmp_path, "broken") / "broken.json").write_text("[")
    (write_pair(tmp_path, "picture") / "picture.jpg").write_bytes(b"no")
    write_map(tmp_path, "ade20k", rows(1), size=(21, 30))
    found = tmp_path / "findings.jsonl"
    assert main(["data", "check", str(tmp_path), "--fix-report", str(found), "--quiet"]) == 1
    findings = [json.loads(line) for line in found.read_text().splitlines()]
    errors = {f["file"].rpartition("/")[2]: f["problem"] for f in findings if f["level"] == "error"}
    assert set(errors) == {"alone.json", "broken.jpg", "picture.jpg", "a.jpg"}
    assert errors["alone.json"] == "is missing"
    assert "is no JSON" in errors["broken.jpg"]
    assert "(20, 30) (h, w), but the picture" in errors["a.jpg"]
    assert all(f["fix"] for f in findings)
    out = capsys.readouterr().out
    assert "4 errors" in out
    assert "ReasonSeg|train has 6 images here, 239 as published" in out
    report = examine(tmp_path)
    row = next(row for row in report.rows if row.source == "ReasonSeg|train")
    assert (row.images, row.published, row.missing, row.unusable, row.decoded) == (6, 239, 1, 2, 3)


def examined(root, *names):
    report = examine(root, names or None)
    return {row.source: (row.images, row.unusable, row.decoded) for row in report.rows}, report.findings


@pytest.mark.parametrize("kind", ["folder", "pipe", "loop"])
def test_one_bad_file_does_not_end_the_check(tmp_path, kind):
    """In place of an annotation file, and of a picture: a finding, and the other sources are examined."""
    write_pair(tmp_path, "a", shapes=[square(0, 0, 5, 5)])
    folder = write_pair(tmp_path, "b")
    write_records(tmp_path, say("<image>\nq", "a"))
    for place in (folder / "b.jpg", tmp_path / "llava_dataset" / "llava_instruct_150k.json"):
        place.unlink()
        if kind == "folder":
            place.mkdir()
        elif kind == "pipe":
            os.mkfifo(place)
        else:
            place.symlink_to(place.name)
    rows, findings = examined(tmp_path, "llava_instruct_150k", "ReasonSeg|train", "hf:nowhere", "manifest:none")
    assert rows["ReasonSeg|train"] == (2, 0, 1)
    errors = {(f.source, f.file.rpartition("/")[2]): f.problem for f in findings if f.level == "error"}
    assert errors["ReasonSeg|train", "b.jpg"] == "is no regular file, or a link to none"
    assert "llava_instruct_150k.json" in errors["llava_instruct_150k", ""]
    assert {"hf:nowhere", "manifest:none"} <= {source for source, _ in errors}
    assert len(dump(tmp_path, "ReasonSeg|train", "--on-bad", "skip")) == 1


def test_an_error_that_nobody_foresaw_is_a_finding_too(tmp_path, monkeypatch):
    write_pair(tmp_path, "a", shapes=[square(0, 0, 5, 5)])
    write_map(tmp_path, "ade20k", rows(1))
    monkeypatch.setattr("cores.data.sources.label_maps.read_values", lambda path: 1 / 0)
    found, findings = examined(tmp_path)
    assert found == {"ade20k": (1, 1, 1), "ReasonSeg|train": (1, 0, 1)}
    assert "ZeroDivisionError: division by zero" in [f.problem for f in findings]


def test_all_faults_of_a_manifest_are_told_at_once(tmp_path):
    write_picture(tmp_path / "a.jpg")
    (tmp_path / "m.jsonl").write_text('{"image": "a.jpg"\n{}\n{"image": "a.jpg", "query": "x"}\n[]\n')
    _, findings = examined(tmp_path, "manifest:m.jsonl")
    assert [f.problem.split(": ")[1] for f in findings] == ["line 1", "line 2", "line 4"]
    line = {"image": "a.jpg", "query": "x"}
    lines = [line, line | {"targets": ["gone.png"]}, line | {"targets": [7]}, line | {"targets": [], "colour": 1}]
    (tmp_path / "m.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    _, findings = examined(tmp_path, "manifest:m.jsonl")
    assert sorted(f.problem.split(": ")[1] for f in findings) == ["line 1", "line 2", "line 3", "line 4"]


EVIL = "a\x1b[31mRED\x1b]0;pwned\x07\nb\u202e"


def test_names_with_codes_reach_the_terminal_escaped(tmp_path, capsys):
    write_pair(tmp_path, "good", shapes=[square(0, 0, 5, 5)])
    (write_pair(tmp_path, EVIL) / f"{EVIL}.jpg").write_bytes(b"no picture")
    for name in ("a.jpg", EVIL):  # of a manifest, which has a query about the picture
        (tmp_path / "m.jsonl").write_text(json.dumps({"image": name, "query": "x", "targets": []}))
        main(["data", "check", str(tmp_path), "--source", "ReasonSeg|train", "manifest:m.jsonl", "--quiet"])
        main(["data", "dump", "manifest:m.jsonl", "--data", str(tmp_path), "--out", str(tmp_path / EVIL), "--quiet"])
    assert main(["data", "dump", "ReasonSeg|train", "--data", str(tmp_path), "--out", str(tmp_path / EVIL)]) == 2
    dump(tmp_path, "ReasonSeg|train", "--on-bad", "skip")
    shown = "".join(capsys.readouterr())
    assert "a\\x1b[31mRED\\x1b]0;pwned\\x07\\x0ab\\u202e" in shown
    assert not set(shown) & set("\x1b\x07\u202e")
    assert "\nb" not in shown


def test_what_the_log_says_is_escaped_too(caplog):
    with escaped_output():
        logging.getLogger("cores.data.bad").warning("left out: %s", EVIL)
    assert caplog.messages == ["left out: " + printable(EVIL)]
    assert printable(b"caf\xe9".decode("utf-8", "surrogateescape")) == "caf\\xe9"
    assert printable("Käse 箱子") == "Käse 箱子"


def test_check_of_sound_data_exits_0_and_of_nothing_1(tmp_path, capsys):
    write_pair(tmp_path, "a", shapes=[square(0, 0, 5, 5)])
    assert main(["data", "check", str(tmp_path), "--quiet"]) == 0
    assert main(["data", "check", str(tmp_path), "--source", "ReasonSeg|val", "--quiet"]) == 1
    assert "there is no folder" in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    assert main(["data", "check", str(tmp_path / "empty")]) == 1
    assert main(["data", "check", str(tmp_path / "nowhere")]) == 2


def test_check_decodes_a_sample(tmp_path):
    folder = write_pair(tmp_path, "a", shapes=[square(100, 100, 110, 110)], size=(200, 300))
    assert [f.problem for f in examine(tmp_path).findings][1:] == []
    write_pair(tmp_path, "b", shapes=[square(0, 0, 9, 9, "ignore"), square(0, 0, 9, 9)], size=(200, 300))
    assert "the mask of 'what?' is empty" in [f.problem for f in examine(tmp_path).findings]
    content = (folder / "a.jpg").read_bytes()
    (folder / "a.jpg").write_bytes(content[: len(content) // 2])
    assert examine(tmp_path, decode=0).ok
    assert not examine(tmp_path).ok


def test_check_finds_what_training_and_evaluation_share(tmp_path):
    for n, split in enumerate(("train", "val", "test")):
        folder = write_pair(tmp_path, f"x{n}", split, texts=["What is it?" if n < 2 else "Other?"])
        values = np.full((20, 30, 3), 7 * n, np.uint8)
        Image.fromarray(values).save(folder / f"x{n}.jpg", quality=90)
    train = tmp_path / "reason_seg" / "ReasonSeg" / "train" / "x0.jpg"
    (tmp_path / "reason_seg" / "ReasonSeg" / "test" / "x2.jpg").write_bytes(train.read_bytes())
    shared = [f.problem for f in examine(tmp_path).findings if "shares" in f.problem]
    assert len(shared) == 2
    assert shared[0].startswith("shares 1 images with ReasonSeg|test, such as")
    assert shared[1].startswith("shares 1 texts with ReasonSeg|val")


def test_the_same_coco_picture_is_known_in_any_year(tmp_path):
    write_map(tmp_path, "cocostuff", rows(1), stem="000000000009")
    home = tmp_path / "refer_seg" / "refcoco"
    home.mkdir(parents=True)
    ref = {"image_id": 9, "ann_id": 1, "split": "val", "sentences": [{"sent": "x"}]}
    (home / "refs(unc).json").write_text(json.dumps([ref]))
    name = "COCO_train2014_000000000009.jpg"
    annotation = {"id": 1, "image_id": 9, "category_id": 1, "segmentation": encode(np.ones((20, 30), bool))}
    image = {"id": 9, "file_name": name, "height": 20, "width": 30}
    (home / "instances.json").write_text(
        json.dumps({"images": [image], "annotations": [annotation], "categories": []})
    )
    write_picture(tmp_path / "refer_seg" / "images" / "mscoco" / "images" / "train2014" / name)
    report = examine(tmp_path)
    assert report.ok
    (shared,) = [f for f in report.findings if "shares" in f.problem]
    assert (shared.source, "refcoco|val" in shared.problem) == ("cocostuff|train", True)
    assert [row.source for row in report.rows] == ["cocostuff", "refcoco|unc|val"]


@pytest.mark.parametrize("suffix", ["png", "html"])
def test_show_draws_what_the_model_sees(tmp_path, suffix):
    write_pair(tmp_path, "a", texts=["<b>what?</b>"], shapes=[square(0, 0, 29, 19)], size=(20, 30))
    write_pair(tmp_path, "b", texts=["gone?"])
    out = tmp_path / f"sheet.{suffix}"
    command = ["data", "show", "ReasonSeg|train", "--data", str(tmp_path), "--out", str(out), "--side", "60"]
    assert main(command) == 0
    if suffix == "html":
        page = out.read_text("utf-8")
        assert page.count("<img") == 2
        assert "&lt;b&gt;what?&lt;/b&gt;" in page
        assert "gone? (not there)" in page
    else:
        sheet = np.asarray(Image.open(out).convert("RGB")).astype(int)
        left = sheet[8 : 8 + 320, 8 : 8 + 320]
        assert (left[240:] < 20).all()  # the padding of a picture 20 x 30 in its square
        assert left[:200].mean() > 60
    assert main(command) == 2
    assert main([*command[:-3], str(tmp_path / "sheet.pdf")]) == 2
