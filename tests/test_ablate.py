"""`cores ablate`: every row is a recipe, what is done is kept, and its tables are means over seeds."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_run import tiny_recipe

from cores.cli import main
from cores.errors import UserError
from cores.evaluation.ablation import ablation_tables, is_scored, markdown, read_ablation, run_folder, scored_folder
from cores.recipe import load_recipe

OWN = """
base: {base}
seeds: [0, 1]
settings: [trainer.max_steps=1, "data.sources={{scenes: [scenes|train]}}", data.questions_per_image=1]
score: {{sources: ["scenes|test"], limit: 1, answers: teacher-forced}}
rows:
  one: [model.refiner=none, "model.train=[lora, embeddings, head, projection, mask_decoder]"]
  two: [one, lora.r=1]
tables:
  Both: {{one: 50.0, two: null}}
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    tiny_recipe(tmp_path)
    file = tmp_path / "own.yaml"
    file.write_text(OWN.format(base=tmp_path / "tiny.yaml"))
    return file


def pretend(out: Path, row: str, seed: int, giou: float) -> None:
    folder = scored_folder(out, row, seed)
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps({"sources": {"scenes|test": {"teacher-forced": {"giou": giou}}}}))


def test_every_row_of_what_comes_with_cores_is_a_recipe() -> None:
    ablation = read_ablation("tiny")
    for row in ablation.rows.values():
        load_recipe(ablation.base, [*row, *ablation.settings])
    assert {row for table in ablation.tables.values() for row in table} == set(ablation.rows)
    assert "model.levels=1" in ablation.rows["InC"]  # by way of the row that it names


def test_a_row_is_the_mean_over_its_seeds_with_their_spread(own: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for seed, giou in enumerate((0.5, 0.6)):
        pretend(out, "one", seed, giou)
    pretend(out, "two", 0, 0.25)
    (table,) = ablation_tables(read_ablation(str(own)), out)
    assert table.rows == (("one", "50.0", "55.0 ± 7.1", "2"), ("two", "–", "25.0", "1"))
    assert markdown([table]).splitlines()[2:] == [
        "| row | paper, ReasonSeg\\|val | scenes\\|test | seeds |",
        "| --- | --- | --- | --- |",
        "| one | 50.0 | 55.0 ± 7.1 | 2 |",
        "| two | – | 25.0 | 1 |",
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("two: [one,", "two: [won,", "rows.two: 'won' is no setting, and no row before it; did you mean one?"),
        ("two: [one,", "two: [two,", "rows.two: 'two' is no setting, and no row before it"),
        ("two: null", "too: null", "tables, Both: there is no row too; did you mean two?"),
        ("seeds: [0, 1]", "seeds: few", "seeds: missing, or not what is expected"),
        ("limit: 1,", "limits: 1,", "there is no score.limits; did you mean limit?"),
        ("rows:", "rows: [", "is no YAML"),
        ("teacher-forced", "both", "score.answers: found 'both', expected generated or teacher-forced"),
        ("\n  Both: {one: 50.0, two: null}", " []", "tables: missing, or not what is expected"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(own: Path, old: str, new: str, message: str) -> None:
    own.write_text(own.read_text().replace(old, new))
    with pytest.raises(UserError) as error:
        read_ablation(str(own))
    assert message in str(error.value)


def test_a_row_that_no_recipe_can_be_ends_it_before_anything_trains(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own.write_text(own.read_text().replace("lora.r=1", "lora.rank=1"))
    assert main(["ablate", str(own), "--out", str(tmp_path / "out")]) == 2
    assert "lora.rank" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_setting_behind_rows_is_no_row(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    pretend(out, "one", 0, 0.5)
    asked = ["ablate", str(own), "--out", str(out), "--tables", "--rows", "one"]
    assert main([*asked, "lora.r=2"]) == 0
    assert main([*asked, "lora.rank=2"]) == 2
    assert "lora.rank" in capsys.readouterr().err
    assert main([*asked, "ones"]) == 2
    assert "--rows ones: there is no such row" in capsys.readouterr().err


def test_what_was_trained_with_other_settings_is_not_shown_as_these(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, ablation = tmp_path / "out", read_ablation(str(own))
    pretend(out, "one", 0, 0.5)
    recipe = load_recipe(ablation.base, [*ablation.rows["one"], *ablation.settings, "trainer.seed=0"])
    run_folder(out, "one", 0).mkdir()
    (run_folder(out, "one", 0) / "recipe.yaml").write_text(recipe.to_yaml())
    asked = ["ablate", str(own), "--out", str(out), "--seeds", "0", "--rows", "one"]
    assert main(asked) == 0
    assert main([*asked, "trainer.max_steps=7"]) == 2
    assert "was trained with other settings" in capsys.readouterr().err
    assert is_scored(ablation, "one", 0, out)
    assert not is_scored(replace(ablation, sources=("scenes|val",)), "one", 0, out)
    assert ablation_tables(replace(ablation, sources=("scenes|val",)), out)[0].rows[0] == ("one", "50.0", "–", "0")


@pytest.mark.slow
def test_it_trains_and_scores_what_is_not_there_yet(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    pretend(out, "one", 0, 0.5)
    assert main(["ablate", str(own), "--out", str(out), "--seeds", "0"]) == 0
    assert not (out / "one" / "seed-0").exists()  # what is scored is not trained again
    found = json.loads((scored_folder(out, "two", 0) / "results.json").read_text())["sources"]["scenes|test"]
    giou = found["teacher-forced"]["giou"]
    assert f"{100 * giou:.1f}" in capsys.readouterr().out
    assert f"| two | – | {100 * giou:.1f} | 1 |" in (out / "ablation.md").read_text()
