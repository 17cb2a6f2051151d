"""What differs between two evaluations, as tables, as plain JSON, and as one HTML file with the flips' pictures."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from PIL import Image

from cores import masks
from cores.evaluation.compare import Difference, Flip
from cores.evaluation.report import LARGEST, Pictures, page, table_html
from cores.evaluation.result import Record
from cores.evaluation.tables import Table, number


def table(found: Difference) -> Table:
    """A source's figures side by side, and whether the difference is sure."""
    rows = []
    for path, (one, two, (low, high)) in found.figures.items():
        sure = "" if low <= 0 <= high else "yes"
        ends = f"{low:+.3f} to {high:+.3f}"
        rows.append((" ".join(path), number(one), number(two), f"{two - one:+.3f}", ends, sure))
    title = f"{found.source}, {found.mode}: {found.images} pictures"
    note = (
        f"Right (IoU 0.5 and more) in the second alone: {found.better} questions, in the first alone: {found.worse}. "
        "The interval is of the paired difference; sure: it does not hold 0."
    )
    return Table(title, ("figure", "first", "second", "difference", "95 % interval", "sure"), tuple(rows), note)


def as_json(found: Difference) -> dict[str, Any]:
    """Every figure of a source and mode, ready for JSON."""
    figures = [
        {"figure": list(path), "first": one, "second": two, "difference": two - one, "interval": list(ends)}
        for path, (one, two, ends) in found.figures.items()
    ]
    counts = {"images": found.images, "better": found.better, "worse": found.worse}
    return {"source": found.source, "mode": found.mode, **counts, "figures": figures}


def render(
    about: Mapping[str, str],
    found: Sequence[Difference],
    pictures: Mapping[str, Callable[[int], Image.Image]],
) -> str:
    """The HTML. `pictures` of the samples by source; a source without them is shown in words."""
    parts = []
    for one in found:
        parts.append(table_html(table(one)))
        if one.flips:
            drawn = Pictures(pictures[one.source], LARGEST // len(found)) if one.source in pictures else None
            cards = "".join(_card(flip, drawn) for flip in one.flips)
            parts.append(f'<h3>Changed sides</h3><div class="cards">{cards}</div>')
    return page("Two evaluations", about, "".join(parts))


def _card(flip: Flip, pictures: Pictures | None) -> str:
    panels = "" if pictures is None else "".join(_panels(flip, pictures))
    good = "good" if flip.change > 0 else "bad"
    return (
        f'<article class="card"><p class="query">{escape(flip.one.query)}</p><div class="panels">{panels}</div>'
        f"<p>{escape(flip.one.sentence)}<br/>{escape(flip.two.sentence)}</p>"
        f'<p class="facts"><span class="{good}">IoU {number(flip.one.iou)} to {number(flip.two.iou)}</span>'
        f'<span class="quiet">{escape(flip.one.kind or "")}</span>'
        f'<span class="quiet">{escape(flip.one.image)}</span></p></article>'
    )


def _panels(flip: Flip, pictures: Pictures) -> list[str]:
    if pictures.room < 0:
        return []
    sample = flip.one.sample
    panels = [pictures.figure(sample, None, "picture")]
    panels += [pictures.figure(sample, _drawn(r), name) for r, name in ((flip.one, "first"), (flip.two, "second"))]
    if flip.one.truth:
        panels.append(pictures.figure(sample, [masks.decode(rle) for rle in flip.one.truth], "truth"))
    pictures.room -= sum(map(len, panels))
    return panels


def _drawn(record: Record) -> list[masks.Mask | None]:
    """The last level's mask of each chain."""
    return [masks.decode([*chain.values()][-1]) if chain else None for chain in record.levels]
