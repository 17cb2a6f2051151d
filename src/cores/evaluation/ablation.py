"""An ablation: rows of settings over one recipe, each trained and scored with several seeds, and their tables."""

import json
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from cores.errors import UserError
from cores.evaluation.sample_asker import MODES
from cores.evaluation.tables import NOTHING, Table
from cores.typed_yaml import Loader, fits, nearest

KEYS: dict[str, Any] = {
    "base": str,
    "seeds": list[int],
    "settings": list[str],
    "score": dict[str, Any],
    "rows": dict[str, list[str]],
    "tables": dict[str, dict[str, float | None]],
}
SCORE: dict[str, Any] = {"sources": list[str], "limit": int, "answers": str}


@dataclass(frozen=True, slots=True)
class Ablation:
    """`base`: a recipe; `settings`: over it in every row; `rows`: by name what is said over those; `tables`: by title
    the rows of each, with the paper's gIoU in per cent, None where it has none. Scored: the first `limit` pictures
    of `sources`, with `answers` generated or teacher-forced."""

    base: str
    seeds: tuple[int, ...]
    settings: tuple[str, ...]
    sources: tuple[str, ...]
    limit: int
    answers: str
    rows: Mapping[str, tuple[str, ...]]
    tables: Mapping[str, Mapping[str, float | None]]


def read_ablation(name: str) -> Ablation:
    """An ablation that comes with cores, by name, or a file. Raises UserError that says what is wrong with it."""
    file = Path(name)
    known = {entry.name.removesuffix(".yaml"): entry for entry in resources.files("cores.ablations").iterdir()}
    known = {key: entry for key, entry in known.items() if entry.name.endswith(".yaml")}
    try:
        text = known[name].read_text("utf-8") if name in known else file.read_text("utf-8")
        said = yaml.load(text, Loader)
    except OSError:
        raise UserError(f"{name}: is no file, and no ablation that comes with cores{nearest(name, known)}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{name}: is no YAML: {' '.join(str(error).split()):.200}") from None
    wrong = list(_wrong(said))
    if wrong:
        raise UserError(f"ablation {name}: {'; '.join(wrong)}")
    rows = {row: tuple(_settings(row, said["rows"])) for row in said["rows"]}
    score = said["score"]
    return Ablation(
        said["base"],
        tuple(said["seeds"]),
        tuple(said["settings"]),
        tuple(score["sources"]),
        score["limit"],
        score["answers"],
        rows,
        said["tables"],
    )


def _wrong(said: Any) -> Iterator[str]:
    if not isinstance(said, dict):
        yield f"expected {', '.join(KEYS)}"
        return
    for keys, values, where in ((KEYS, said, ""), (SCORE, said.get("score"), "score.")):
        if isinstance(values, dict):
            yield from (f"there is no {where}{key}{nearest(str(key), keys)}" for key in values if key not in keys)
            yield from (f"{where}{key}: missing, or not what is expected" for key, hint in keys.items()
                        if key not in values or not fits(values[key], hint))  # fmt: skip
    score, rows, tables = said.get("score"), said.get("rows"), said.get("tables")
    if isinstance(score, dict) and score.get("answers") not in MODES:
        yield f"score.answers: found {score.get('answers')!r:.40}, expected {' or '.join(MODES)}"
    if isinstance(rows, dict) and fits(rows, KEYS["rows"]):
        for row, items in rows.items():
            yield from _unknown(row, items, rows)
        for title, table in tables.items() if isinstance(tables, dict) and fits(tables, KEYS["tables"]) else ():
            yield from (f"tables, {title}: there is no row {row}{nearest(row, rows)}" for row in table
                        if row not in rows)  # fmt: skip


def _unknown(row: str, items: list[str], rows: Mapping[str, list[str]]) -> Iterator[str]:
    """Rows that a row names and that do not stand before it."""
    before = list(rows)[: list(rows).index(row)]
    yield from (f"rows.{row}: {item!r} is no setting, and no row before it{nearest(item, before)}" for item in items
                if "=" not in item and item not in before)  # fmt: skip


def _settings(row: str, rows: Mapping[str, list[str]]) -> Iterator[str]:
    for item in rows[row]:
        if "=" in item:
            yield item
        else:
            yield from _settings(item, rows)


def scored_folder(out: Path, row: str, seed: int) -> Path:
    """Where the figures of a row's run go."""
    return out / row / f"seed-{seed}-scored"


def run_folder(out: Path, row: str, seed: int) -> Path:
    """Where a row's run is."""
    return out / row / f"seed-{seed}"


def is_scored(ablation: Ablation, row: str, seed: int, out: Path) -> bool:
    """Was a row's run scored already, on these sources and so many of their pictures?"""
    file = scored_folder(out, row, seed) / "results.json"
    if not file.exists():
        return False
    found = json.loads(file.read_text("utf-8"))
    known = all(ablation.answers in found["sources"].get(source, ()) for source in ablation.sources)
    wanted = f"the first {ablation.limit} "  # as `cores eval --limit` says it
    return known and found.get("about", {}).get("limit", wanted).startswith(wanted)


def figures(ablation: Ablation, out: Path) -> dict[str, dict[str, list[float]]]:
    """gIoU by row and source, one a seed that was scored already."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in ablation.rows:
        for seed in ablation.seeds:
            file = scored_folder(out, row, seed) / "results.json"
            if file.exists():
                sources = json.loads(file.read_text("utf-8"))["sources"]
                for source in ablation.sources:
                    one = sources.get(source, {}).get(ablation.answers, {}).get("giou")
                    if one is None:
                        continue
                    found.setdefault(row, {}).setdefault(source, []).append(one)
    return found


def ablation_tables(ablation: Ablation, out: Path) -> list[Table]:
    """The tables so far: of every row the mean gIoU over its seeds, with the standard deviation from two seeds on."""
    found = figures(ablation, out)
    tables = []
    for title, rows in ablation.tables.items():
        lines = []
        for row, paper in rows.items():
            cells = [_mean(found.get(row, {}).get(source, [])) for source in ablation.sources]
            seeds = max((len(values) for values in found.get(row, {}).values()), default=0)
            lines.append((row, NOTHING if paper is None else f"{paper:.1f}", *cells, str(seeds)))
        columns = ("row", "paper, ReasonSeg|val", *ablation.sources, "seeds")
        tables.append(Table(title, columns, tuple(lines)))
    return tables


def _mean(values: list[float]) -> str:
    if not values:
        return NOTHING
    spread = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.1f}{spread}"


def markdown(tables: list[Table]) -> str:
    """Tables as Markdown, each under its title."""
    parts = []
    for table in tables:
        lines = [table.columns, ("---",) * len(table.columns), *table.rows]
        escaped = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
        parts.append("\n".join([f"## {table.title}", "", *escaped]))
    return "\n\n".join(parts) + "\n"
