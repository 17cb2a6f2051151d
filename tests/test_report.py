"""The report: one file that fetches nothing, shows what was asked and answered, and whatever a text contains."""

import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from cores import masks
from cores.evaluation import tables
from cores.evaluation.counts import Counts, compared, covered
from cores.evaluation.glance import glance
from cores.evaluation.report import Chapter, render, selections
from cores.evaluation.result import Record, Result, Score


def disc(radius: float, x: int = 32, y: int = 32) -> np.ndarray:
    rows, columns = np.mgrid[:64, :96]
    return (rows - y) ** 2 + (columns - x) ** 2 < radius**2


def record(number: int, radius: float | None, truth: bool = True, mode: str = "generated", query: str = "") -> Record:
    """A question about a disc of radius 20; `radius` of the answer's disc, None for a refusal."""
    target, answer = disc(20), None if radius is None else disc(radius)
    levels = () if answer is None else ({"location": masks.encode(disc(30)), "target": masks.encode(answer)},)
    iou = 0.0 if answer is None else (answer & target).sum() / (answer | target).sum()
    return Record(
        sample=number,
        question=0,
        image=f"{number}.png",
        mode=mode,
        query=query or f"query {number}",
        sentence="It appears on [LOC]. It is [SEG]." if levels else "There is no such thing.",
        status="segmented" if levels else "absent",
        score=-0.1,
        ious=(float(iou),) if truth else (),
        truth=(masks.encode(target),) if truth else (),
        levels=levels,
        kind="part",
    )


def result(records: list[Record]) -> Result:
    score = Score()
    for found in records:
        drawn = [masks.decode(chain["target"]) for chain in found.levels] or [np.zeros((64, 96), bool)]
        for rle in found.truth:
            score.masks.update(drawn[0], masks.decode(rle))
        score.answers.update(len(found.truth), len(found.levels), not found.levels, bool(found.levels))
    return Result({"generated": score}, len(records), len(records), records)


def picture(number: int) -> Image.Image:
    return Image.new("RGB", (96, 64), (20 * number, 120, 160))


class Tags(HTMLParser):
    """Every tag with its attributes, and that tags close in the order in which they opened."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_selections_show_the_worst_the_best_and_the_wrong_once_each() -> None:
    records = [record(i, radius) for i, radius in enumerate((20, 19, 18, 17, 16, 15, 10, 5))]
    records += [record(8, None), record(9, 20, truth=False), record(10, None, truth=False)]
    found = {name: [r.sample for r in chosen] for name, chosen in selections(records, 2, seed=0).items()}
    assert found["Lowest IoU"] == [7, 6]
    assert found["Highest IoU"] == [0, 1]
    assert found["A mask where nothing is, or none where something is"] == [8, 9]
    assert set(found["Drawn at random"]) <= {2, 3, 4, 5, 10}
    assert found == {name: [r.sample for r in c] for name, c in selections(records, 2, seed=0).items()}


def test_the_report_is_one_well_formed_file_with_its_pictures_inside() -> None:
    found = result([record(0, 19), record(1, 8), record(2, None), record(3, None, truth=False)])
    html = render("A & B", {"model": "tiny"}, [Chapter("scenes|test", found, picture)])
    tags = Tags(html)
    assert tags.open == []
    images = [attributes["src"] or "" for tag, attributes in tags.found if tag == "img"]
    assert len(images) == 4 + 4 + 2 + 1  # picture, two levels where masks were drawn, truth where there is one
    assert all(source.startswith("data:image/jpeg;base64,") for source in images)
    assert not re.search(r"https?://|url\(|@import|<script|<link", html)
    assert "A &amp; B" in html
    assert "prefers-color-scheme: dark" in html
    for text in (
        "query 1",
        "truth: not there",
        "There is no such thing.",
        '<span class="pill">[LOC]</span>',
        "scenes|test, generated",
    ):
        assert text in html


def test_a_hostile_query_stays_text() -> None:
    html = render("t", {}, [Chapter("c", result([record(0, 9, query='<img src=x onerror="alert(1)">')]), picture)])
    assert "<img src=x" not in html
    assert "&lt;img src=x onerror=&quot;" in html


def counted(number: int, radius: float | None) -> Record:
    """As `record`, with what figures are made of."""
    found = record(number, radius)
    drawn = [masks.decode(chain["target"]) for chain in found.levels]
    overlaps, matched = compared(drawn, [disc(20)], None)
    share = covered([disc(30)] if drawn else [], [disc(20)])
    area = bool(drawn and drawn[0].any())
    counts = Counts("generated", "part", 1, len(drawn), not drawn, area, True, overlaps, matched, (0.2,), share)
    return replace(found, counts=counts)


def test_failures_are_told_apart_and_every_answer_is_in_the_filter() -> None:
    moved = masks.encode(disc(20, x=80))
    elsewhere = replace(counted(3, 20), levels=({"location": moved, "target": moved},))
    assert elsewhere.counts is not None
    overlaps, _ = compared([disc(20, x=80)], [disc(20)], None)
    wrong = replace(elsewhere.counts, overlaps=overlaps, covered=covered([disc(20, x=80)], [disc(20)]))
    elsewhere = replace(elsewhere, counts=wrong, ious=(overlaps[0].iou,))
    records = [counted(0, 19), counted(1, None), counted(2, 0), elsewhere, counted(4, 10)]
    seen = glance(records, "generated")
    assert dict(seen.causes) == {
        "no [SEG] said": 1,
        "empty mask": 1,
        "wrong place": 1,
        "right place, wrong outline": 1,
        "location wrong": 1,
        "location right, target wrong": 2,
    }
    assert sum(seen.bins) == seen.targets == 5
    html = render("t", {}, [Chapter("c", Result({"generated": Score()}), picture, answers=records)])
    assert html.count("<article") == 5
    (lines,) = re.findall(r"<textarea[^>]*>(.*?)</textarea>", html, re.DOTALL)
    assert [line.split("\t")[2] for line in lines.splitlines()][3] == "wrong place, location wrong"


def test_what_is_absent_is_counted_by_itself() -> None:
    absent = []
    for number, drawn in ((1, disc(20)), (2, np.zeros((64, 96), bool)), (3, None)):
        chains = [] if drawn is None else [drawn]
        overlaps, matched = compared(chains, [], None)
        levels = tuple({"target": masks.encode(mask)} for mask in chains)
        masked = any(mask.any() for mask in chains)
        counts = Counts("generated", "part", 0, len(chains), not chains, masked, True, overlaps, matched, ())
        absent.append(replace(record(number, None, truth=False), levels=levels, counts=counts))
    assert [one.iou for one in absent] == [0, 1, 1], "an empty mask is none"
    seen = glance([counted(0, 20), *absent], "generated")
    assert (seen.targets, seen.absent) == (1, 3)
    assert ("a mask where nothing is", "1", "33.3 %") in tables.failures(seen).rows


def test_a_report_that_would_be_too_large_leaves_lines_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cores.evaluation.report.LARGEST", 40_000)
    many = [replace(counted(n, 19), query=f"\u7ea2\u8272\u7684\u6c34\u58f6 & {n}") for n in range(2000)]
    html = render("t", {}, [Chapter("c", Result({"generated": Score()}), picture, answers=many)])
    (lines,) = re.findall(r"<textarea[^>]*>(.*?)</textarea>", html, re.DOTALL)
    assert 29_000 < len(lines.encode()) <= 30_000
    assert f"The first {lines.count(chr(10)) + 1:,} of 2,000 answers" in html


@pytest.mark.slow
def test_twenty_thousand_questions_fit_into_twenty_megabytes() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8))
    few = [counted(0, radius) for radius in (20, 18, 14, 9, 0, None)]
    query = "a query of the usual length, which is that of a sentence of about a hundred letters all in all, "

    class Many:
        def __iter__(self) -> Iterator[Record]:
            return (replace(few[i % 6], sample=i, question=i % 5, query=f"{query}{i}") for i in range(20_000))

    chapters = [Chapter(name, Result({"generated": Score()}), lambda i: noise, answers=Many()) for name in "ab"]
    assert len(render("t", {}, chapters).encode()) < 20_000_000


def test_the_summary_says_nothing_where_nothing_was_counted() -> None:
    found = result([record(0, 20), record(1, None)])
    text = str(tables.summary({"own": found}))
    row = next(line for line in text.splitlines() if line.startswith("own, generated"))
    # two masks: gIoU, cIoU and P@t one half; nothing absent was asked; one of two present ones refused
    assert row.split()[2:] == ["2", "0.500", "0.500", *["50.0", "%"] * 5, "–", "50.0", "%", "–", "50.0", "%"]


def test_results_of_two_ranks_add_up_to_one() -> None:
    records = [record(i, radius) for i, radius in enumerate((20, 15, None, 7))]
    whole, parts = result(records), result(records[:1]) + result(records[1:])
    assert parts.compute()["generated"]["answers"]["missing_chains"] == 1
    assert str(parts.compute()) == str(whole.compute())  # as text: nan is not equal to itself
    assert parts.records == records
