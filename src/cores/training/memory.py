"""The memory that training takes on a GPU, computed: the formula that docs/memory.md explains. Nothing is measured.

Legend: positions = places that a picture takes in a prompt; tokens = of all rows of a micro-batch, as long as they may
be; cells = of the segmenter's feature grid. All results are bytes.
"""

import math
from typing import Any

from torch import nn

from cores.modeling.model import CoresModel
from cores.modeling.quantizing import decoder_linears
from cores.recipe import Recipe
from cores.training.quantizing import BYTES as FOUR_BITS

GB = 1e9
PHOTOGRAPH = (640, 480)  # width and height, as COCO's are
SUPERVISED = 32  # tokens of an answer
PLANES = 8  # a mask's logits in fp32, and what its losses keep of them
DECODED = 1e8 / 256**2  # bytes a pixel of a mask's low resolution: its activations in the decoder, a level
BUCKETS = 2 * 5e8 * 2.0  # DeepSpeed's two buffers for gradients on their way, 5e8 numbers each
DEFAULT_ROWS = 8  # transformers' per_device_train_batch_size


def training_memory(model: CoresModel, recipe: Recipe, positions: int, gpus: int = 1) -> dict[str, float]:
    """Bytes on one of so many GPUs, by what they are for.

    Args: `model`: with the parts that train ready to, on any device, the meta device too; `positions`: of a picture.
    """
    trainer, text = recipe.trainer, model.mllm.text_config
    trained, rows = numbers(model, True), int(trainer.get("per_device_train_batch_size", DEFAULT_ROWS))
    shared = trainer.get("deepspeed") is not None
    checkpointed = trainer.get("activation_checkpointing") or trainer.get("gradient_checkpointing")
    width = 2.0 if trainer.get("bf16") or trainer.get("fp16") else 4.0  # bytes of a number that is computed
    longest = (recipe.prompt.max_text_tokens or 1024) + positions
    masks = rows * recipe.data.questions_per_image
    answers = masks * max(recipe.reinforcement.samples, 1)
    said = SUPERVISED + recipe.reinforcement.think  # tokens of an answer, and of a thought before it
    if recipe.reinforcement.samples:  # each drawn answer stands behind its own copy of the question
        longest += answers // rows * (SUPERVISED + said)
    tokens = rows * longest
    layer = tokens * width * (8 * text.hidden_size + 3 * text.intermediate_size)
    layer += rows * text.num_attention_heads * float(longest**2) * 2 * width
    frozen, small = 2.0 if recipe.model.dtype == "bfloat16" else 4.0, quantised(model) if recipe.model.quantize else 0
    layers, segmenter = int(text.num_hidden_layers), model.segmenter
    side = segmenter.mask_size if model.config.loss_resolution == "low" else segmenter.image_size
    decoded = len(model.config.levels) * DECODED * segmenter.mask_size**2
    kept = recipe.reinforcement.samples and recipe.reinforcement.kl  # the start is compared with all along
    return {
        "frozen weights": (numbers(model, False) - small) * frozen + small * FOUR_BITS,
        "trained weights": trained * (2.0 if shared else 4.0),  # as they compute
        # fp32 weights, two moments, gradients, which ZeRO-2 shares out; without it two moments and fp32 gradients
        "optimiser": trained * (12.0 + 2.0) / gpus if shared else trained * 12.0,
        "buckets": BUCKETS if shared else 0.0,
        "checkpointed states": tokens * text.hidden_size * width * layers if checkpointed else 0.0,
        "layers": layer if checkpointed else layer * layers,
        "logits": answers * said * text.vocab_size * 4.0 * 3,
        "segmenter": rows * segmenter_peak(model) * width / 2,
        "masks": masks * PLANES * side**2 * 4.0 + min(masks, recipe.model.masks_per_pass) * decoded,
        **({"start's weights": numbers(model.mllm, True) * 4.0} if kept else {}),
    }


def numbers(model: nn.Module, trains: bool | None = None) -> int:
    """Parameters that train, that do not, or (None) all but LoRA's."""
    return sum(
        count(parameter)
        for name, parameter in model.named_parameters()
        if (".lora_" not in name if trains is None else parameter.requires_grad == trains)
    )


def count(parameter: nn.Parameter) -> int:
    """How many numbers a parameter is, also where bitsandbytes has packed them."""
    packed = getattr(parameter, "quant_state", None)
    return parameter.numel() if packed is None else math.prod(packed.shape)


def quantised(model: CoresModel) -> int:
    """Weights that 8 or 4 bits apply to."""
    return sum(layer.in_features * layer.out_features for _, layer in decoder_linears(model))


def segmenter_peak(model: CoresModel) -> float:
    """Bytes in bf16 of the image encoder's largest attention, scores of all heads before and after the softmax, and
    of the features that are kept."""
    segmenter = model.segmenter
    cells = (segmenter.mask_size // 4) ** 2
    levels = 1 if segmenter.fit == "pad" else 1 + 4 + 16  # a pyramid's other two are twice and four times as fine
    return float(2 * 2 * _attention_heads(model) * cells**2 + 2 * segmenter.dim * levels * cells)


def _attention_heads(model: CoresModel) -> int:
    """Heads of the image encoder where it sees the whole picture; none in a convolutional one."""
    vision: Any = model.config.segmenter_config.vision_config
    trunk = getattr(vision, "backbone_config", vision)
    stages = getattr(trunk, "num_attention_heads_per_stage", None)  # Hiera sees the whole in its third
    return int(stages[2] if stages else getattr(trunk, "num_attention_heads", 0))
