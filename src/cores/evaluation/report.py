"""An evaluation as one HTML file: tables, then questions with their pictures. Nothing is fetched when it is opened."""

import base64
import io
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources

from PIL import Image

from cores import masks, viz
from cores.evaluation import tables
from cores.evaluation.result import Record, Result

LONGEST = 300  # pixels of an embedded picture's longest side


@dataclass(frozen=True, slots=True)
class Chapter:
    """One evaluation of the report.

    `picture` gives the (rotated, RGB) picture of a sample by its number; `note`: what a reader must know.
    """

    name: str
    result: Result
    picture: Callable[[int], Image.Image]
    note: str = ""


def render(title: str, about: Mapping[str, str], chapters: Sequence[Chapter], each: int = 6, seed: int = 0) -> str:
    """The report's HTML. `about`: facts under the title; `each`: how many questions a selection shows.

    `seed`: for those drawn at random. Raises what a chapter's `picture` raises.
    """
    style = resources.files("cores.evaluation").joinpath("report.css").read_text(encoding="utf-8")
    facts = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in about.items())
    overview = _table(tables.summary({chapter.name: chapter.result for chapter in chapters}))
    body = "".join(_chapter(chapter, each, seed) for chapter in chapters)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style></head>'
        f'<body><main><h1>{escape(title)}</h1><dl class="about">{facts}</dl>{overview}{body}</main></body></html>\n'
    )


def selections(records: Sequence[Record], each: int, seed: int) -> dict[str, list[Record]]:
    """Which questions to show: wrong about what is there, the worst and best masks, and some drawn at random.

    At most `each` of a kind. Nothing is shown twice; questions of equal IoU keep their order.
    """
    wrong = [r for r in records if not r.right_about_presence]
    masked = sorted((r for r in records if r.truth and r.levels), key=lambda r: r.iou)
    worst = masked[:each]
    best = masked[len(worst) :][-each:][::-1]
    shown = {id(r) for r in [*wrong[:each], *worst, *best]}
    rest = [r for r in records if id(r) not in shown]
    drawn = random.Random(seed).sample(rest, min(each, len(rest)))
    return {
        "Drawn at random": drawn,
        "Lowest IoU": worst,
        "Highest IoU": best,
        "A mask where nothing is, or none where something is": wrong[:each],
    }


def _chapter(chapter: Chapter, each: int, seed: int) -> str:
    result = chapter.result
    main = next(iter(result.scores), "")  # the mode whose questions are shown
    parts = [f"<h2>{escape(chapter.name)}</h2>"]
    note = f". {escape(chapter.note)}" if chapter.note else ""
    parts.append(f'<p class="quiet">{result.images} pictures, {result.questions} questions{note}</p>')
    for mode, score in result.scores.items():
        found = [table for table in (tables.sanity(score), tables.sizes(score), tables.kinds(score)) if table.rows]
        inside = f'<div class="tables">{"".join(map(_table, found))}</div>'
        opened = " open" if mode == main else ""
        parts.append(f"<details{opened}><summary>Answers: {escape(mode)}</summary>{inside}</details>")
    others = {(r.mode, r.sample, r.question): r for r in result.records if r.mode != main}
    pictures = _Pictures(chapter.picture)
    chosen = selections([r for r in result.records if r.mode == main], each, seed)
    for name, records in chosen.items():
        if not records:
            continue
        cards = []
        for record in records:
            same = [others.get((mode, record.sample, record.question)) for mode in result.scores]
            cards.append(_card(record, [other for other in same if other], pictures))
        parts.append(f'<h3>{escape(name)}</h3><div class="cards">{"".join(cards)}</div>')
    return "".join(parts)


def _card(record: Record, others: Sequence[Record], pictures: "_Pictures") -> str:
    panels = [pictures.figure(record.sample, None, "picture")]
    names = dict.fromkeys(name for chain in record.levels for name in chain)
    for name in names:
        # A chain without this level keeps its place, so that every chain has one colour in all panels.
        chains = [masks.decode(chain[name]) if name in chain else None for chain in record.levels]
        panels.append(pictures.figure(record.sample, chains, name))
    if record.truth:
        panels.append(pictures.figure(record.sample, [masks.decode(rle) for rle in record.truth], "truth"))
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


class _Pictures:
    """Pictures of a chapter, each opened once in a row of questions about it, drawn small."""

    def __init__(self, picture: Callable[[int], Image.Image]) -> None:
        self.picture = picture
        self.last: tuple[int, Image.Image] | None = None

    def figure(self, sample: int, chains: Sequence[masks.Mask | None] | None, name: str) -> str:
        """The picture as it is, or (with chains, even none of them) with little colour but the masks'."""
        if self.last is None or self.last[0] != sample:
            self.last = (sample, self.picture(sample))
        found = [(c, m) for c, m in zip(viz.colors(len(chains or ())), chains or (), strict=True) if m is not None]
        picture, drawn = viz.fit(self.last[1], [mask for _, mask in found], LONGEST)
        if chains is not None:
            picture = viz.overlay(viz.fade(picture), drawn, [color for color, _ in found])
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=88)
        data = base64.b64encode(file.getvalue()).decode("ascii")
        text = escape(name)
        return (
            f'<figure><img alt="{text}" width="{picture.width}" height="{picture.height}" '
            f'src="data:image/jpeg;base64,{data}"><figcaption>{text}</figcaption></figure>'
        )


def _table(table: tables.Table) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in table.columns)
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return (
        f'<section><h3>{escape(table.title)}</h3><div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>{note}</section>"
    )
