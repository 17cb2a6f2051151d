"""docs/from-the-paper.md: no flag of the published README is missing, and everything that it names here exists."""

import re
import shlex
from pathlib import Path
from typing import get_type_hints

import pytest
from shared import shared

from cores.cli import main
from cores.recipe import SECTIONS, load_recipe
from cores.trainer_section import trainer_arguments

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "from-the-paper.md").read_text("utf-8")
BLOCK = re.compile(r"^```\n(.*?)^```", re.MULTILINE | re.DOTALL)


def sections(text: str) -> dict[str, str]:
    """What stands below each heading, by the heading's words; of one that comes twice, both."""
    found: dict[str, str] = {}
    heading, fenced = "", False
    for line in text.splitlines(keepends=True):
        fenced ^= line.startswith("```")
        if not fenced and line.startswith("#"):
            heading = line.strip("# \n")
        else:
            found[heading] = found.get(heading, "") + line
    return found


def commands(text: str) -> list[str]:
    """The commands in a text's code blocks, a line each."""
    lines = [line for block in BLOCK.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    return [line.strip() for line in lines if line.strip()]


def test_every_word_of_a_published_command_is_on_the_page() -> None:
    """In the section of the same name: flags, scripts, variables that are set, and whole commands without flags."""
    (seed,) = [file for file in shared("seeds").glob("*.txt") if "train_ds_best.py" in file.read_text("utf-8")]
    ours, flags = sections(PAGE), set()
    for heading, text in sections(seed.read_text("utf-8")).items():
        for command in commands(text):
            if heading == "Citation" or command.startswith(("@", "}")) or " = {" in command or "={" in command:
                continue
            words = re.findall(
                r"--[\w-]+|\b[\w]+\.py\b|\bCUDA_VISIBLE_DEVICES\b|\bdeepspeed\b|\bflash-attn\b", command
            )
            flags |= {word for word in words if word.startswith("--")}
            for word in words or [command]:
                assert word in ours[heading], f"{heading}: the page says nothing of {word}"
    assert {"--version", "--sample_rates", "--save_path", "--lora_r", "--eval_only", "--master_port"} <= flags


def test_every_recipe_field_on_the_page_exists() -> None:
    named = set(re.findall(rf"\b({'|'.join(SECTIONS)})\.(\w+)", PAGE)) - {("cores", "train")}
    assert len(named) > 20
    known = {name: trainer_arguments() if name == "trainer" else get_type_hints(SECTIONS[name]) for name in SECTIONS}
    assert not [f"{section}.{key}" for section, key in sorted(named) if key not in known[section]]


def test_every_command_on_the_page_can_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    """Its flags are the verb's own; its recipe takes its settings."""
    seen = set()
    for command in commands(PAGE):
        words = shlex.split(command[command.index("cores ") :])
        verb = words[1]
        with pytest.raises(SystemExit):
            main([verb, "--help"])
        assert set(re.findall(r"--[\w-]+", " ".join(words))) <= set(re.findall(r"--[\w-]+", capsys.readouterr().out))
        if verb == "train":
            load_recipe(words[2], [word for word in words[3:] if re.match(r"\w+\.\w[\w.]*=", word)])
        seen.add(verb)
    assert seen == {"convert", "train", "merge", "eval"}
