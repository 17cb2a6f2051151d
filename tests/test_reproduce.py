"""`cores reproduce`: every row's recipe and sources exist, what is missing is said, and what is there is scored."""

import json
from pathlib import Path

import pytest
from learned import save
from test_cli_eval import data as reasonseg  # noqa: F401

from cores.cli import main
from cores.data.sources import open_source
from cores.errors import DataError
from cores.evaluation.reproduction import Places, paper_table, paper_tables, training_commands
from cores.recipe import load_recipe


def test_every_row_trains_by_a_recipe_and_is_scored_on_sources_that_are_known() -> None:
    places = Places(Path("models"), Path("dataset"), Path("out"))
    for name, table in paper_tables().items():
        assert table.rows, name
        for row in table.rows:
            load_recipe(row.recipe, row.settings)
            train, merge = training_commands(row, places)
            assert train[train.index("--out") + 1] == merge[2]
            for source in row.figures:
                with pytest.raises(DataError, match="there is no folder dataset"):
                    open_source(source, places.data)


def test_rows_of_one_training_share_a_model() -> None:
    by_name = {row.name: row for table in paper_tables().values() for row in table.rows}
    assert by_name["all"].model == by_name["levels-2"].model == by_name["exemplars-1"].model == "cores-7b"
    assert by_name["exemplars-0"].model == "exemplars-0"


def test_what_is_there_is_scored_beside_the_paper_and_what_is_not_is_named(
    reasonseg: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    models, out = tmp_path / "models", tmp_path / "out"
    save(models / "cores-7b")
    places = ["--models", str(models), "--data", str(reasonseg), "--out", str(out)]
    assert main(["reproduce", "exemplars", *places, "--run"]) == 1
    said = capsys.readouterr()
    assert f"missing: {models / 'exemplars-0'}: no weights there" in said.out
    assert "no figures for exemplars-0" in said.err
    ours = json.loads((out / "cores-7b" / "results.json").read_text())["sources"]["ReasonSeg|val"]
    line = next(line for line in said.out.splitlines() if line.startswith("exemplars-1  "))
    assert line.split() == [
        "exemplars-1",
        "ReasonSeg|val",
        "giou",
        "59.4",
        f"{100 * ours['teacher-forced']['giou']:.1f}",
        f"{100 * ours['teacher-forced']['giou'] - 59.4:+.1f}",
    ]
    file = out / "cores-7b" / "results.json"
    kept = file.read_text()
    assert main(["reproduce", "exemplars", *places, "--run"]) == 1  # what was scored is kept, not refused
    assert file.read_text() == kept
    file.write_text(kept.replace('"weights": "sha256:', '"weights": "sha256:other'))
    assert main(["reproduce", "exemplars", *places, "--run"]) == 1  # but not what other weights were scored with
    assert "sha256:other" not in file.read_text()


def test_the_tables_are_listed_and_another_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce"]) == 0
    assert capsys.readouterr().out.split("\n")[0].startswith("reasonseg")
    assert main(["reproduce", "ablations"]) == 2
    assert "did you mean ablation?" in capsys.readouterr().err
    assert paper_table("ablation").rows[0].figures["ReasonSeg|val"] == {"giou": 52.9, "ciou": 54.0}
