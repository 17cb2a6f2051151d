"""The paper's tables as work to do: what each row trains and scores, with which commands, and what is missing here."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from cores.checkpoints.find import find
from cores.checkpoints.runs.fingerprint import fingerprint
from cores.data.sources import open_source
from cores.errors import CheckpointError, DataError, UserError
from cores.typed_yaml import nearest

ANSWERS = "teacher-forced"  # how the paper's figures were made


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: a model and its figures.

    `recipe` trains it, with `settings` over it; `figures`: the paper's, in per cent, by source and name (`giou`).
    """

    name: str
    recipe: str
    figures: Mapping[str, Mapping[str, float]]
    settings: tuple[str, ...] = ()

    @property
    def model(self) -> str:
        """The name of its folder: rows that are the same training share one."""
        return self.name if self.settings else self.recipe


@dataclass(frozen=True, slots=True)
class PaperTable:
    """A table of the paper."""

    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are: folders of models by name, the data directory, and where results go, a folder a model."""

    models: Path
    data: Path
    out: Path


def paper_tables() -> dict[str, PaperTable]:
    """Every table by its name, in the paper's order."""
    text = (resources.files("cores.evaluation") / "paper_tables.yaml").read_text(encoding="utf-8")
    return {
        name: PaperTable(
            table["title"],
            tuple(Row(r["name"], r["recipe"], r["figures"], tuple(r.get("settings", ()))) for r in table["rows"]),
        )
        for name, table in yaml.safe_load(text).items()
    }


def paper_table(name: str) -> PaperTable:
    """A table by its name. Raises UserError for one that is not there."""
    tables = paper_tables()
    if name not in tables:
        raise UserError(f"there is no table {name}{nearest(name, tables)}")
    return tables[name]


def training_commands(row: Row, places: Places) -> list[list[str]]:
    """What makes a row's model, as lists of words: train, then merge."""
    run = str(Path("runs") / row.model)
    train = ["torchrun", "--nproc-per-node", "8", "-m", "cores", "train", row.recipe]
    return [
        [*train, "--data", str(places.data), "--out", run, *row.settings],
        ["cores", "merge", run, "--out", str(places.models / row.model)],
    ]


def scoring_command(row: Row, places: Places) -> list[str]:
    """What scores a row's model, as a list of words."""
    model, out = str(places.models / row.model), str(places.out / row.model)
    how = ["--answers", ANSWERS, "--protocol", "published"]
    return ["cores", "eval", model, "--on", *row.figures, "--data", str(places.data), "--out", out, *how]


def shell(words: list[str]) -> str:
    """A command as one types it."""
    return shlex.join(words)


def model_fingerprint(row: Row, places: Places) -> str | None:
    """sha256 of the weights of a row's model; None where there is none."""
    folder = places.models / row.model
    if not folder.is_dir():  # or its name would be looked for on the hub
        return None
    try:
        return fingerprint(find(folder))
    except CheckpointError:
        return None


def scored_sources(row: Row, places: Places) -> Mapping[str, Any]:
    """The figures of a row's model by source; none where it was not scored, or other weights were."""
    file = places.out / row.model / "results.json"
    if not file.exists():
        return {}
    found, weights = json.loads(file.read_text("utf-8")), model_fingerprint(row, places)
    sources: Mapping[str, Any] = found["sources"]
    return sources if weights in (None, found.get("about", {}).get("weights")) else {}


def missing_parts(row: Row, places: Places) -> list[str]:
    """What a row lacks before it can be scored: its model, and sources that cannot be opened."""
    found = []
    if model_fingerprint(row, places) is None:
        found.append(f"{places.models / row.model}: no weights there")
    for source in row.figures:
        try:
            open_source(source, places.data, evaluation=True)
        except DataError as error:
            found.append(str(error))
    return found
