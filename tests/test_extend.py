"""A longer vocabulary changes no old row and no answer, and the models that come with cores are extended whole."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import tiny_config, tiny_model

from cores.checkpoints.find import shipped
from cores.cli import main
from cores.errors import CheckpointError
from cores.scenes.pretrain.extend import grow, new_tokens
from cores.scenes.tokenizer import build_tokenizer


def test_new_rows_are_never_the_answer_and_differ_from_each_other() -> None:
    mllm = tiny_model(tiny_config()).mllm
    tables = [mllm.get_input_embeddings().weight, mllm.get_output_embeddings().weight]
    words, head = (table.detach().clone() for table in tables)
    size = len(words)
    grow(mllm, size + 40)
    longer, longer_head = mllm.get_input_embeddings().weight, mllm.get_output_embeddings().weight
    assert mllm.config.text_config.vocab_size == len(longer) == len(longer_head) == size + 40
    assert torch.equal(longer[:size], words)
    assert torch.equal(longer_head[:size], head)
    assert len(longer[size:].unique(dim=0)) == 40
    states = torch.randn(500, head.shape[1], generator=torch.Generator().manual_seed(1))
    assert torch.equal((states @ longer_head.T).argmax(1), (states @ head.T).argmax(1))


def test_an_old_token_with_another_id_is_named() -> None:
    short = build_tokenizer(["a kettle"])
    assert new_tokens(short, short) == []
    with pytest.raises(CheckpointError, match="cannot be extended: .*would have other ids"):
        new_tokens(short, build_tokenizer(["a cup, a kettle"]))


def test_the_command_makes_the_files_that_ship(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Extended once more, nothing is new and no tensor moves, in the model and in its bases."""
    assert main(["scenes", "extend", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("0 new tokens\n")
    for file in ("cores-tiny/model.safetensors", "bases-tiny/difference.safetensors"):
        made, stored = load_file(tmp_path / file), load_file(shipped(file.split("/")[0]) / file.split("/")[1])
        assert made.keys() == stored.keys()
        assert all(torch.equal(made[name], stored[name]) for name in stored)
    for file in ("tokenizer.json", "processor_config.json", "prompt.json", "README.md"):
        made_text, text = (
            (folder / file).read_text("utf-8") for folder in (tmp_path / "cores-tiny", shipped("cores-tiny"))
        )
        assert made_text == text
