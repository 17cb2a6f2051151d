"""An evaluation as one HTML file: tables, then questions with their pictures. Nothing is fetched when it is opened."""

import base64
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources

import numpy as np
from PIL import Image

from cores import masks, viz
from cores.asking.similarity import SimilarityMap
from cores.evaluation import tables
from cores.evaluation.figures import Figures
from cores.evaluation.glance import Line, chosen, glance
from cores.evaluation.result import Record, Result

LONGEST = 280  # pixels of an embedded picture's longest side
LINES = 75  # per cent of a chapter's room that the lines of all its answers may take
LARGEST = 18_000_000  # bytes of all pictures and lines: a report opens at once


@dataclass(frozen=True, slots=True)
class Chapter:
    """One evaluation of the report.

    `picture` gives the (rotated, RGB) picture of a sample by its number; `note`: what a reader must know. `figures`:
    with intervals; `answers`: every record, read again each time it is gone through (default: those of the result).
    """

    name: str
    result: Result
    picture: Callable[[int], Image.Image]
    note: str = ""
    figures: Figures | None = None
    answers: Iterable[Record] | None = None

    @property
    def records(self) -> Iterable[Record]:
        """Every record, in order."""
        return self.result.records if self.answers is None else self.answers


def render(title: str, about: Mapping[str, str], chapters: Sequence[Chapter], each: int = 24, seed: int = 0) -> str:
    """The report's HTML. `about`: facts under the title; `each`: how many questions a selection shows at most.

    `seed`: for those drawn at random. Raises what a chapter's `picture` raises.
    """
    overview = table_html(tables.summary({chapter.name: chapter.result for chapter in chapters}))
    known = {chapter.name: chapter.figures for chapter in chapters if chapter.figures is not None}
    if known:
        overview += table_html(tables.intervals(known))
    room = LARGEST // max(len(chapters), 1)
    body = "".join(_chapter(chapter, each, seed, room) for chapter in chapters)
    return page(title, about, overview + body)


def page(title: str, about: Mapping[str, str], body: str) -> str:
    """A whole file in HTML. `about`: facts under the title; `body`: what stands below them, in HTML."""
    style = resources.files("cores.evaluation").joinpath("report.css").read_text(encoding="utf-8")
    facts = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in about.items())
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style></head>'
        f'<body><main><h1>{escape(title)}</h1><dl class="about">{facts}</dl>{body}</main></body></html>\n'
    )


def selections(records: Sequence[Record], each: int, seed: int) -> dict[str, list[Record]]:
    """Which questions to show (see `glance.chosen`), of records in one mode."""
    found = chosen(glance(records, records[0].mode if records else "").lines, each, seed)
    return {name: [records[number] for number in numbers] for name, numbers in found.items()}


def _chapter(chapter: Chapter, each: int, seed: int, room: int) -> str:
    result = chapter.result
    main = next(iter(result.scores), "")  # the mode whose questions are shown
    parts = [f"<h2>{escape(chapter.name)}</h2>"]
    note = f". {escape(chapter.note)}" if chapter.note else ""
    parts.append(f'<p class="quiet">{result.images} pictures, {result.questions} questions{note}</p>')
    seen = glance(chapter.records, main)
    for mode, score in result.scores.items():
        found = [table for table in (tables.sanity(score), tables.sizes(score), tables.kinds(score)) if table.rows]
        if mode == main:
            found += [table for table in (tables.spread(seen), tables.failures(seen), tables.calibration(seen))]
        inside = f'<div class="tables">{"".join(table_html(table) for table in found if table.rows)}</div>'
        opened = " open" if mode == main else ""
        parts.append(f"<details{opened}><summary>Answers: {escape(mode)}</summary>{inside}</details>")
    numbers = chosen(seen.lines, each, seed)
    wanted = {number for some in numbers.values() for number in some}
    shown, others = _picked(chapter.records, wanted, main)
    listed = _fitting(seen.lines, LINES * room // 100)
    pictures = Pictures(chapter.picture, room - sum(len(line.encode()) + 1 for line in listed))
    for name, some in numbers.items():
        if not some:
            continue
        cards = [_card(shown[n], others.get((shown[n].sample, shown[n].question), []), pictures) for n in some]
        parts.append(f'<h3>{escape(name)}</h3><div class="cards">{"".join(cards)}</div>')
    if pictures.left_out:
        parts.append(
            f'<p class="note">{pictures.left_out} questions are shown without pictures: the file is full.</p>'
        )
    parts.append(_filter(listed, len(seen.lines)))
    return "".join(parts)


def _picked(
    records: Iterable[Record], wanted: set[int], main: str
) -> tuple[dict[int, Record], dict[tuple[int, int], list[Record]]]:
    """The records of these numbers, and what was answered to their questions in other modes."""
    shown = {number: record for number, record in enumerate(records) if number in wanted}
    asked = {(record.sample, record.question) for record in shown.values()}
    others: dict[tuple[int, int], list[Record]] = {}
    for record in records:
        if record.mode != main and (record.sample, record.question) in asked:
            others.setdefault((record.sample, record.question), []).append(record)
    return shown, others


# Goes through the lines of the box beside it and shows the first ones that hold all words; text stays text.
FILTER = (
    "const words=this.value.toLowerCase().split(/\\s+/),box=this.parentNode,"
    "found=box.querySelector('textarea').value.split('\\n').filter(l=>words.every(w=>l.toLowerCase().includes(w)));"
    "box.querySelector('output').textContent=found.length+' answers'+(found.length>200?', the first 200:':'');"
    "box.querySelector('pre').textContent=found.slice(0,200).join('\\n')"
)


def _fitting(lines: Sequence[Line], room: int) -> list[str]:
    """The answers' lines in HTML, the first that have so many bytes together."""
    found = []
    for line in lines:
        text = escape(line.text)
        room -= len(text.encode()) + 1
        if room < 0:
            break
        found.append(text)
    return found


def _filter(listed: Sequence[str], count: int) -> str:
    """A box that lists the answers which hold some words: in query, picture, kind, status or cause."""
    lines, head = "\n".join(listed), "All answers"
    if len(listed) < count:
        head = f"The first {len(listed):,} of {count:,} answers: the file is full"
    return (
        f'<h3>{head}</h3><div class="filter"><input type="search" placeholder="words of query, picture, kind, '
        f'status or cause" aria-label="filter" oninput="{escape(FILTER)}" />'
        f'<output></output><pre class="scroll"></pre><textarea hidden="">{lines}</textarea></div>'
    )


def _card(record: Record, others: Sequence[Record], pictures: "Pictures") -> str:
    panels = pictures.panels(record)
    sentence = re.sub(r"(\[[A-Z_]+\])", r'<span class="pill">\1</span>', escape(record.sentence))
    good = "good" if record.right_about_presence else "bad"
    facts = [f'<span class="{good}">{escape(record.status)}</span>']
    if record.truth:
        each = ", ".join(tables.number(iou) for iou in record.ious)
        facts.insert(
            0, f'<span><span class="bar"><i style="width:{100 * record.iou:.0f}%"></i></span>IoU {each}</span>'
        )
    else:
        facts.append('<span class="quiet">truth: not there</span>')
    facts += [f'<span class="quiet">{escape(o.mode)}: IoU {tables.number(o.iou)}</span>' for o in others]
    facts += [f'<span class="quiet">{escape(record.kind)}</span>'] if record.kind else []
    facts.append(f'<span class="quiet">{escape(record.image)}</span>')
    return (
        f'<article class="card"><p class="query">{escape(record.query)}</p><div class="panels">{"".join(panels)}</div>'
        f'<p>{sentence}</p><p class="facts">{"".join(facts)}</p></article>'
    )


class Pictures:
    """Pictures of a chapter, each opened once in a row of questions about it, drawn small, while there is `room`."""

    def __init__(self, picture: Callable[[int], Image.Image], room: int) -> None:
        self.picture, self.room, self.left_out = picture, room, 0
        self.last: tuple[int, Image.Image] | None = None

    def panels(self, record: Record) -> list[str]:
        """The picture, every level's masks on it and what its tokens are like, and the truth; nothing when the file is
        full."""
        if self.room < 0:
            self.left_out += 1
            return []
        panels = [self.figure(record.sample, None, "picture")]
        for name in dict.fromkeys(name for chain in record.levels for name in chain):
            # A chain without this level keeps its place, so that every chain has one colour in all panels.
            chains = [masks.decode(chain[name]) if name in chain else None for chain in record.levels]
            panels.append(self.figure(record.sample, chains, name))
            found = [SimilarityMap.of_dict(chain[name]) for chain in record.similarity or () if name in chain]
            if found:
                panels.append(self.heat(record.sample, found, f"{name}: similarity"))
        if record.truth:
            panels.append(self.figure(record.sample, [masks.decode(rle) for rle in record.truth], "truth"))
        self.room -= sum(map(len, panels))
        return panels

    def figure(self, sample: int, chains: Sequence[masks.Mask | None] | None, name: str) -> str:
        """The picture as it is, or (with chains, even none of them) with little colour but the masks'."""
        found = [(c, m) for c, m in zip(viz.colors(len(chains or ())), chains or (), strict=True) if m is not None]
        picture, drawn = viz.fit(self.opened(sample), [mask for _, mask in found], LONGEST)
        if chains is not None:
            picture = viz.overlay(viz.fade(picture), drawn, [color for color, _ in found])
        return self.embedded(picture, name)

    def heat(self, sample: int, maps: Sequence[SimilarityMap], name: str) -> str:
        """The picture with more colour where a token is like a patch; of several chains the most."""
        picture, _ = viz.fit(self.opened(sample), [], LONGEST)
        most = np.fmax.reduce([one.at_size() for one in maps])
        small = Image.fromarray(most).resize(picture.size, Image.Resampling.NEAREST)
        return self.embedded(viz.heat(picture, np.asarray(small)), name)

    def opened(self, sample: int) -> Image.Image:
        """The sample's picture."""
        if self.last is None or self.last[0] != sample:
            self.last = (sample, self.picture(sample))
        return self.last[1]

    @staticmethod
    def embedded(picture: Image.Image, name: str) -> str:
        """A picture with its name, as part of the file."""
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=82)
        data = base64.b64encode(file.getvalue()).decode("ascii")
        text = escape(name)
        return (
            f'<figure><img alt="{text}" width="{picture.width}" height="{picture.height}" '
            f'src="data:image/jpeg;base64,{data}"><figcaption>{text}</figcaption></figure>'
        )


def table_html(table: tables.Table) -> str:
    """A table in HTML."""
    head = "".join(f"<th>{escape(name)}</th>" for name in table.columns)
    rows = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in table.rows)
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return (
        f'<section><h3>{escape(table.title)}</h3><div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>{note}</section>"
    )


def _cell(text: str) -> str:
    """A cell; blocks become a bar, and an interval in brackets goes below its figure."""
    if text and not text.strip(tables.BLOCK):
        return f'<td class="blocks"><i style="width:{len(text)}ch"></i></td>'
    figure, bracket, interval = text.partition(" (")
    if bracket and interval.endswith(")") and " to " in interval:
        return f"<td>{escape(figure)} <small>({escape(interval)}</small></td>"
    return f"<td>{escape(text)}</td>"
