"""A tiny config of every family of segmenters, with random weights that make every path show in the numbers."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    EdgeTamConfig,
    EdgeTamVisionConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Sam2Config,
    Sam2HieraDetConfig,
    Sam2VisionConfig,
    Sam3TrackerConfig,
    Sam3VisionConfig,
    SamConfig,
    SamHQConfig,
)
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.sam3.configuration_sam3 import Sam3ViTConfig

from cores.modeling.segmenters import segmenter_class

SAM = {
    "vision_config": {
        "hidden_size": 16, "output_channels": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 128,
        "patch_size": 16, "mlp_dim": 32, "window_size": 4, "global_attn_indexes": [1], "num_pos_feats": 16,
    },
    "prompt_encoder_config": {"hidden_size": 32, "image_size": 128, "patch_size": 16, "mask_input_channels": 16},
    "mask_decoder_config": {"hidden_size": 32, "mlp_dim": 32, "num_attention_heads": 4, "iou_head_hidden_dim": 16},
}  # fmt: skip
PYRAMID = {"fpn_hidden_size": 32, "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]]}
HIERA = {
    "hidden_size": 8, "image_size": [128, 128], "blocks_per_stage": [1, 1, 2, 1], "global_attention_blocks": [3],
    "embed_dim_per_stage": [8, 16, 32, 64], "num_attention_heads_per_stage": [1, 2, 4, 8],
    "window_positional_embedding_background_size": [4, 4], "window_size_per_stage": [4, 2, 4, 2],
}  # fmt: skip


def sam2_config() -> Sam2Config:
    vision = Sam2VisionConfig(
        backbone_config=Sam2HieraDetConfig(**HIERA), backbone_channel_list=[64, 32, 16, 8], **PYRAMID
    )
    return Sam2Config(**{**SAM, "vision_config": vision})


def sam3_tracker_config(scales: int = 3) -> Sam3TrackerConfig:
    """Of 112 px pictures. `scales`: levels of the pyramid, of which three are used."""
    vit = Sam3ViTConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=112,
        patch_size=14, window_size=4, global_attn_indexes=[1], pretrain_image_size=56,
    )  # fmt: skip
    vision = Sam3VisionConfig(backbone_config=vit, scale_factors=[4.0, 2.0, 1.0, 0.5][:scales], **PYRAMID)
    prompts = {**SAM["prompt_encoder_config"], "image_size": 112, "patch_size": 14}
    return Sam3TrackerConfig(**{**SAM, "vision_config": vision, "prompt_encoder_config": prompts})


class ToyTrunkConfig(PreTrainedConfig):
    model_type = "toy_trunk"


class ToyTrunk(PreTrainedModel):
    """In place of timm's trunk: four maps (images, channels, h, w), 4 to 32 times coarser than the picture."""

    config_class = ToyTrunkConfig
    _supports_sdpa = True

    def __init__(self, config: ToyTrunkConfig) -> None:
        super().__init__(config)
        sides = ((3, 8, 4), (8, 16, 2), (16, 32, 2), (32, 64, 2))
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(wide, out, step, step), nn.BatchNorm2d(out)) for wide, out, step in sides
        )
        self.post_init()

    def forward(self, pixel_values: Tensor, **kwargs: Any) -> BaseModelOutput:
        maps = [pixel_values]
        for layer in self.layers:
            maps.append(layer(maps[-1]))
        return BaseModelOutput(last_hidden_state=maps[1:])


AutoConfig.register("toy_trunk", ToyTrunkConfig)
AutoModel.register(ToyTrunkConfig, ToyTrunk)


def edgetam_config() -> EdgeTamConfig:
    """With a toy in place of timm's trunk: neck and decoder are the family's own."""
    vision = EdgeTamVisionConfig(backbone_config=ToyTrunkConfig(), backbone_channel_list=[64, 32, 16, 8], **PYRAMID)
    return EdgeTamConfig(**{**SAM, "vision_config": vision})


def sam_hq_config() -> SamHQConfig:
    return SamHQConfig(**{**SAM, "mask_decoder_config": {**SAM["mask_decoder_config"], "vit_dim": 16}})


CONFIGS = {
    "sam": lambda: SamConfig(**SAM),
    "sam_hq": sam_hq_config,
    "sam2": sam2_config,
    "sam3_tracker": sam3_tracker_config,
    "edgetam": edgetam_config,
}


def randomised(model: Any, seed: int = 0) -> Any:
    """The model in eval mode, with weights that make every path show."""
    torch.manual_seed(seed)
    for name, value in model.named_parameters():
        torch.nn.init.normal_(value, mean=1.0 if "norm" in name and name.endswith("weight") else 0.0, std=0.2)
    for name, value in model.named_buffers():
        if name.endswith("positional_embedding"):
            value.normal_()
    return model.eval()


def native(config: PreTrainedConfig) -> Any:
    """The family's own class in transformers, with its exchange of unstable masks off, as ours.

    SAM-HQ's decoder as published: its masks are made of the cells that its transformer gives. transformers' makes them
    of those from before it, rows for columns.
    """
    if hasattr(config.mask_decoder_config, "dynamic_multimask_via_stability"):
        config.mask_decoder_config.dynamic_multimask_via_stability = False
    model = randomised(AutoModel.from_config(config))
    if config.model_type == "sam_hq":
        made: list[Tensor] = []
        decoder = model.mask_decoder
        decoder.transformer.register_forward_hook(lambda module, given, found: made.append(found[1]))
        decoder.upscale_conv1.register_forward_pre_hook(lambda module, given: made.pop()[:, 0].mT.view(given[0].shape))
    return model


def tiny_segmenter(kind: str, config: PreTrainedConfig | None = None) -> Any:
    """Ours of this family, with the weights of `native`."""
    config = config or CONFIGS[kind]()
    model = segmenter_class(kind)(config)
    model.load_state_dict(native(config).state_dict())
    return model.eval()
