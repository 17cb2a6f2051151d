"""Recipes: those that ship say what the paper says, values keep their types, and every mistake is named at once."""

import dataclasses
import subprocess
import sys
from enum import Enum

import pytest
import yaml

from cores.errors import RecipeError
from cores.recipe import load_recipe, read_recipe
from cores.recipe_files import COMMAND_LINE, recipe_names, recipe_text
from cores.recipe_listing import listing
from cores.trainer_section import OWNED, problems, trainer_arguments


@pytest.mark.parametrize("name", recipe_names())
def test_what_ships_is_good_and_survives_its_own_yaml(name, tmp_path):
    recipe = load_recipe(name)
    assert f"cores train {name} " in recipe_text(name).splitlines()[0], "the first line is the command that runs it"
    copy = tmp_path / "copy.yaml"
    copy.write_text(recipe.to_yaml())
    assert load_recipe(copy) == recipe
    given = recipe.reinforcement.samples == 0  # rewards train words, and leave masks as they are
    trains = recipe.model.refiner != "none" and given
    assert ("refiner" in recipe.model.train) == trains, "what is not there cannot train"


def test_the_7b_recipe_is_the_papers():
    recipe = load_recipe("cores-7b")
    assert (recipe.lora.r, recipe.lora.alpha, recipe.lora.dropout) == (8, 16, 0.05)
    assert recipe.lora.targets == ["q_proj", "v_proj"]
    assert recipe.model.train == ["lora", "embeddings", "head", "projection", "refiner", "mask_decoder"]
    assert recipe.data.rates == {"sem_seg": 9, "refer_seg": 3, "reason_seg": 1}
    assert (recipe.data.steps_per_epoch, recipe.data.questions_per_image) == (500, 3)
    trainer = {"learning_rate": 3e-4, "adam_beta1": 0.9, "adam_beta2": 0.95, "weight_decay": 0.0, "max_grad_norm": 1.0}
    trainer |= {"warmup_steps": 100, "lr_scheduler_type": "linear", "num_train_epochs": 50}
    trainer |= {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 10, "deepspeed": "zero2"}
    assert trainer.items() <= recipe.trainer.items()


def test_settings_go_over_the_file_with_their_types():
    settings = [
        "trainer.learning_rate=3e-4",
        "trainer.save_strategy=no",
        "data.sources.mine=[scenes|train, ReasonSeg|train]",
        "data.rates.mine=2",
        "model.refiner=none",
        "evaluation.limit=null",
    ]
    recipe = load_recipe("tiny", settings)
    assert recipe.trainer["learning_rate"] == 3e-4
    assert recipe.trainer["save_strategy"] == "no"
    assert recipe.data.sources == {"scenes": ["scenes|train"], "mine": ["scenes|train", "ReasonSeg|train"]}
    assert (recipe.data.rates, recipe.model.refiner, recipe.evaluation.limit) == ({"mine": 2}, "none", None)


MISTAKES = {
    "model.refinr=paper": "there is no model.refinr; did you mean refiner?",
    "modle.refiner=paper": "there is no section modle; did you mean model?",
    "trainer.learning_rte=1": "there is no trainer.learning_rte; did you mean learning_rate?",
    "trainer.output_dir=x": "trainer.output_dir is set by cores: use --out",
    "model.levels=4": "model.levels: found 4, expected 1 or 2 or 3 or null",
    "lora.r=true": "lora.r: found True, expected a whole number",
    "lora.dropout=half": "lora.dropout: found 'half', expected a number",
    "model.train=[lora, hed]": "model.train: found ['lora', 'hed'], expected a list of lora or",
    "data.rates.scnes=2": "there is no data.sources.scnes; did you mean scenes?",
    "model.start=shipped": "found start and bases",
    "model.mllm=x": "model.mllm and model.segmenter go together",
    "losses.mask=-0.5": "losses.mask: found -0.5, expected at least 0",
    "tiny": "'tiny' is no setting: expected section.key=value",
    "trainer.max_steps.x=1": "there is nothing inside max_steps",
    "model.attn_implementation=flash_attention_2": "does not keep packed questions apart: take sdpa",
    "trainer.per_device_train_batch_size=0": "trainer.per_device_train_batch_size: found 0, expected at least 1",
    "trainer.gradient_accumulation_steps=1.5": "gradient_accumulation_steps: found 1.5, expected a whole number",
    "trainer.weight_decay=x": "trainer.weight_decay: found 'x', expected a number",
    "trainer.weight_decay=-0.1": "trainer.weight_decay: found -0.1, expected at least 0",
    "trainer.learning_rate=-1e-4": "trainer.learning_rate: found -0.0001, expected more than 0",
    "trainer.learning_rate=1e999": "trainer.learning_rate: found inf, expected a finite number",
    "trainer.lr_scheduler_type=linnear": "trainer.lr_scheduler_type: found 'linnear', expected linear or cosine or",
    "trainer.lr_scheduler_type=greedy": "greedy follows the loss of an evaluation, which is not taken here",
    "trainer.optim=adamw_toch": "trainer.optim: found 'adamw_toch', expected one of adamw_torch, ",
    "trainer.max_steps=0": "trainer.max_steps: found 0, expected at least 1, or -1 for num_train_epochs",
    "trainer.max_steps=10.5": "trainer.max_steps: found 10.5, expected a whole number",
    "trainer.num_train_epochs=0": "trainer.num_train_epochs: found 0, expected more than 0",
    "trainer.eval_strategy=sometimes": "trainer.eval_strategy: found 'sometimes', expected no or steps or epoch",
    "trainer.save_strategy=best": "trainer.save_strategy: the best is saved in any case",
    "trainer.save_strategy=false": "trainer.save_strategy: found False, expected no or steps or epoch or best",
    "trainer.logging_steps=0": "trainer.logging_steps: found 0, expected more than 0",
    "trainer.save_steps=2.5": "found 2.5, expected a whole number, or a share of all steps below 1",
    "trainer.save_total_limit=0": "trainer.save_total_limit: found 0, expected at least 1",
    "trainer.adam_beta2=1": "trainer.adam_beta2: found 1, expected at least 0 and below 1",
    "trainer.bf16=yes": "trainer.bf16: found 'yes', expected true or false",
    "trainer.seed=4294967296": "trainer.seed: found 4294967296, expected at least 0 and below 2^32",
    "trainer.dataloader_num_workers=-1": "trainer.dataloader_num_workers: found -1, expected at least 0",
    "trainer.parallelism_config=x": "trainer.parallelism_config: found 'x', expected null",
    "trainer.fsdp=full_shard": "trainer.fsdp: only FSDP2 is taken, not FSDP1",
    "trainer.fsdp_config={version: 1}": "trainer.fsdp: only FSDP2 is taken, not FSDP1",
}


@pytest.mark.parametrize(("setting", "message"), MISTAKES.items())
def test_a_mistake_is_named(setting, message):
    with pytest.raises(RecipeError) as error:
        load_recipe("tiny", [setting])
    assert message in str(error.value)


def test_all_mistakes_are_named_at_once():
    with pytest.raises(RecipeError) as error:
        load_recipe("tiny", ["model.refinr=paper", "lora.r=0", "trainer.epoch=1"])
    for part in ("model.refinr", "lora.r", "trainer.epoch"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: [1", "is no YAML"),
        ("just words", "expected sections"),
        ("extends: {self}", "extends itself"),
        ("extends: tinny", "did you mean tiny?"),
        ("extends: tiny\nmodel: {refiner: paper, refiner: none}", "refiner stands twice"),
        ("model: {}", "found none of them"),
        ("extends: tiny\nmodel: 3", "model: expected a section, found 3"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(text, message, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(text.replace("{self}", str(file)))
    with pytest.raises(RecipeError, match="mine.yaml|tinny") as error:
        load_recipe(file)
    assert message in str(error.value)


def test_extending_takes_sections_key_by_key(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("extends: tiny\ntrainer: {learning_rate: 1.0e-5}\n")
    mine, tiny = load_recipe(file), load_recipe("tiny")
    assert mine.trainer == {**tiny.trainer, "learning_rate": 1e-5}
    assert dataclasses.replace(mine, trainer=tiny.trainer) == tiny


def test_trainer_arguments_are_the_installed_librarys():
    from transformers import TrainingArguments

    assert trainer_arguments().keys() == {field.name for field in dataclasses.fields(TrainingArguments)}


def test_what_transformers_has_by_itself_is_good():
    """Every default of the installed library fits the type that is read off its source, and the bounds."""
    from transformers import TrainingArguments

    defaults = {field.name: field.default for field in dataclasses.fields(TrainingArguments)}
    plain = {
        name: value.value if isinstance(value, Enum) else value
        for name, value in defaults.items()
        if name not in OWNED and value is not dataclasses.MISSING
    }
    assert list(problems(plain)) == []


def test_a_check_needs_no_torch():
    code = (
        "import sys; from cores.recipe import load_recipe; load_recipe('cores-7b'); assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_yaml_of_recipes_is_plain(tmp_path):
    """What is written can be read by any YAML reader, without our own rules."""
    text = load_recipe("tiny", ["trainer.save_strategy=no"]).to_yaml()
    assert yaml.safe_load(text)["trainer"]["save_strategy"] == "no"


SETTINGS = ["trainer.max_steps=3", "data.rates={a: 2}", "data.sources={a: [scenes|train]}", "data.rates.a=7"]


@pytest.mark.parametrize("settings", [[], SETTINGS], ids=["alone", "with settings"])
@pytest.mark.parametrize("name", recipe_names())
def test_a_listing_is_the_recipe_again_and_every_place_is_true(name, settings, tmp_path):
    recipe, said = read_recipe(name, settings)
    text = listing(recipe, said)
    file = tmp_path / "again.yaml"
    file.write_text(text)
    assert load_recipe(file) == recipe
    assert yaml.safe_load(text)["trainer"] == recipe.trainer, "plain YAML"
    told = {}
    for line in text.splitlines()[1:]:
        value, _, place = line.rpartition("  # ")
        if not place or value.endswith(":") or not value.strip() or ": " not in value:
            continue
        key = value.split(":")[0].strip(" #")
        told.setdefault(place, set()).add(key)
        source, _, number = place.rpartition(":")
        if number.isdigit():
            assert key in recipe_text(source).splitlines()[int(number) - 1], f"{line} is not there"
        else:
            assert place.startswith(("default", COMMAND_LINE))
    assert told.get(COMMAND_LINE, set()) == ({"max_steps", "a"} if settings else set())


def test_a_listing_says_what_went_over_what(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("extends: tiny\n\ntrainer:\n  max_steps: 5\nlosses: {text: 2.0}\n")
    text = listing(*read_recipe(file, ["losses.mask=0.25"]))
    assert f"max_steps: 5 # {file}:4" in " ".join(text.split())
    for line in (f"text: 2.0 # {file}:5", "mask: 0.25 # command line", "bce: null # default: 2.0, of style paper"):
        assert line in " ".join(text.split())
    assert "location: 0.5 # tiny:" in " ".join(text.split()), "what a file leaves out is its parent's"
