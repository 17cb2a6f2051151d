"""The published layout written by us: the same tensors as came in, and only what that layout can hold."""

import json
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
from published import added_tokens, published_model, published_state, tokenizer_model, write_clip, write_published
from safetensors.torch import load_file
from tiny import tiny_config, tiny_model
from tiny_tokenizer import tiny_processor

from cores.checkpoints.load import load
from cores.checkpoints.published.conversion import convert
from cores.checkpoints.published.exporting import export
from cores.checkpoints.save import save
from cores.checkpoints.tensors.lazy import open_shards
from cores.cli import main
from cores.errors import CheckpointError
from cores.modeling import CoresModel

FREQUENCIES = "rotary_emb.inv_freq"


def converted(tmp_path: Path, model: CoresModel) -> Path:
    src, clip = write_published(tmp_path / "src", model), write_clip(tmp_path / "clip", model)
    convert("lisa" if len(model.config.levels) == 1 else "cores", src, clip, tmp_path / "ours")
    return tmp_path / "ours"


@pytest.mark.parametrize("form", [(2, "published", "linear"), (2, "none", "mlp2x_gelu"), (1, "none", "linear")])
def test_there_and_back_every_tensor_is_the_same(
    form: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = published_model(*form)
    ours = converted(tmp_path, model)
    monkeypatch.setattr("cores.checkpoints.published.exporting.MAX_SHARD", 100_000)  # several shards
    assert main(["export", str(ours), "--out", str(tmp_path / "theirs")]) == 0
    assert "the layout does not say" not in capsys.readouterr().err
    theirs, came = open_shards(tmp_path / "theirs"), published_state(model)
    assert (tmp_path / "theirs" / "pytorch_model.bin.index.json").is_file()
    assert set(theirs) == set(came)
    for name, value in came.items():
        if FREQUENCIES not in name:  # those were made up
            assert theirs.tensor(name).dtype == value.dtype
            assert torch.equal(theirs.tensor(name), value), name
    assert json.loads((tmp_path / "theirs" / "added_tokens.json").read_text()) == added_tokens(form[0])

    kind = "lisa" if form[0] == 1 else "cores"
    convert(kind, tmp_path / "theirs", tmp_path / "theirs" / "clip", tmp_path / "again")
    one, two = load_file(ours / "model.safetensors"), load_file(tmp_path / "again" / "model.safetensors")
    assert one.keys() == two.keys()
    assert [name for name in one if one[name].dtype != two[name].dtype or not torch.equal(one[name], two[name])] == []
    first, again = load(ours), load(tmp_path / "again")
    assert first[0].config.to_dict().keys() == again[0].config.to_dict().keys()
    for name in ("levels", "refiner", "style"):
        assert getattr(first[0].config, name) == getattr(again[0].config, name)
    assert first[1].tokenizer.get_vocab() == again[1].tokenizer.get_vocab()


def test_rotary_frequencies_are_llamas() -> None:
    """The stored golden model has them as the published library wrote them."""
    from shared import shared

    from cores.checkpoints.published.exporting import rotary_frequencies

    stored = load_file(shared("golden/cores") / "model.safetensors")
    config = tiny_config()
    config.mllm_config.text_config.head_dim = 16  # as there
    found = rotary_frequencies(config, torch.float16)
    assert found.keys() == {name for name in stored if FREQUENCIES in name}
    for name, value in found.items():
        assert torch.equal(value, stored[name])


@pytest.mark.parametrize(
    ("levels", "refiner", "message"),
    [
        (3, "none", "levels: found 3, the layout holds 1 (LISA) or 2 (CoReS)"),
        (2, "paper", "refiner: found paper, the layout holds none or published"),
        (2, "region", "refiner: found region"),
        (2, "none", "levels[0].token: found [LOC], its programs look for [SEG_SEMA]"),
    ],
)
def test_what_the_layout_cannot_hold_is_named(levels: int, refiner: str, message: str, tmp_path: Path) -> None:
    save(tiny_model(tiny_config(levels, refiner)), tiny_processor(levels), tmp_path / "model")
    with pytest.raises(CheckpointError, match="the published layout cannot hold this model") as caught:
        export(tmp_path / "model", tmp_path / "out")
    assert message in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("segmenter_config.mask_decoder_config.num_attention_heads", 4, "found 4, it would be read back as 8"),
        ("segmenter_config.vision_config.layer_norm_eps", 1e-3, "found 0.001, it would be read back as 1e-06"),
        ("mllm_config.multimodal_projector_bias", False, "found False, it would be read back as True"),
        ("mllm_config.projector_hidden_act", "relu", "found 'relu', it would be read back as 'gelu'"),
    ],
)
def test_a_field_that_would_be_read_back_otherwise_is_named(
    path: str, value: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = converted(tmp_path, published_model(1))
    file = ours / "config.json"
    stored = json.loads(file.read_text())
    part = stored
    *steps, last = path.split(".")
    for step in steps:
        part = part[step]
    part[last] = value
    file.write_text(json.dumps(stored))
    with pytest.raises(CheckpointError, match="the published layout cannot hold this model") as caught:
        export(ours, tmp_path / "out")
    assert f"{path}: {message}" in str(caught.value)


def test_settings_without_a_place_in_the_layout_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours = converted(tmp_path, published_model(1))
    file = ours / "processor_config.json"
    file.write_text(file.read_text().replace('"crop"', '"pad"'))
    stored = json.loads((ours / "config.json").read_text())
    stored["segmenter_config"]["mask_decoder_config"]["layer_norm_eps"] = 1e-6
    (ours / "config.json").write_text(json.dumps(stored))
    assert main(["export", str(ours), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    said = capsys.readouterr().err
    assert "the layout does not say that clip_fit: pad here, crop there" in said
    assert "the mask decoder's layer_norm_eps: 1e-06 here, 1e-05 there" in said


def test_the_tokenizer_that_goes_along_is_the_models_own(tmp_path: Path) -> None:
    ours = converted(tmp_path, published_model(1))
    (ours / "tokenizer.model").unlink()
    with pytest.raises(CheckpointError, match="give it as --tokenizer"):
        export(ours, tmp_path / "out")
    text, other = tmp_path / "text.txt", tmp_path / "other"
    text.write_text("\n".join(f"{a}{b}{c} ok" for a in "mnop" for b in "qrst" for c in "uvwx"))
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(other), vocab_size=300, model_type="bpe", byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2, hard_vocab_limit=False,
    )  # fmt: skip
    with pytest.raises(CheckpointError, match=r"other\.model: "):
        export(ours, tmp_path / "out", tokenizer=Path(f"{other}.model"))
    export(ours, tmp_path / "out", tokenizer=tokenizer_model())
    assert (tmp_path / "out" / "tokenizer.model").read_bytes() == tokenizer_model().read_bytes()
