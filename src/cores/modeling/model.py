"""CoReS: a multimodal LLM whose grounding tokens prompt a segmenter, level by level (paper section 3).

Legend: images = rows of the batch, tokens = length of the longest row, levels = of the chain, masks = all targets of
the batch on one flat axis, width = the language model's, dim = of a prompt token, h, w = a picture's own size.
"""

import functools
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from cores.geometry import Size
from cores.loss_keys import MASK_LOSSES
from cores.modeling.chain import refine_once, run_chain
from cores.modeling.configuration import CoresConfig
from cores.modeling.generation_config import MAX_NEW_TOKENS, read_max_new_tokens, write_generation_config
from cores.modeling.last_layer import LastLayer
from cores.modeling.mllms import make_mllm
from cores.modeling.objective import Frames, level_losses, share
from cores.modeling.packed_states import packed_states
from cores.modeling.packing import supervised_places
from cores.modeling.policy import Drawn, policy_losses
from cores.modeling.refiner import make_refiner
from cores.modeling.segmenters import make_segmenter
from cores.modeling.segmenters.base import Features
from cores.modeling.strict import refuse, refuse_broken, refuse_differences

MASKS_PER_PASS = 16  # one takes about 0.1 GB a level in training, of a whole-size SAM 2 in fp32


@dataclass
class CoresOutput(ModelOutput):
    """What `CoresModel.forward` gives. Losses are unweighted scalars but for `loss` and `mask_loss`.

    `mask_losses`: by their names in the log, those of the last level (`bce_loss`, `dice_loss`) and, where they train,
    of those before it (`location_bce_loss`, ...); `location_loss`: of the levels before the last together, weighted as
    in `mask_loss`; `policy_loss`, `policy_kl` (unweighted) and `policy_cut` of drawn answers, means over their tokens.
    `low_res_logits`: a tuple of (masks, H, W), one a level; `tokens` (levels, masks, dim): prompt
    tokens before the refiner; `hidden_states` (images, tokens, width): last layer, after the final norm; in training
    those that losses and masks are made of, where there are any: others may be unfinished, see `last_layer`.
    """

    loss: Tensor | None = None
    text_loss: Tensor | None = None
    mask_loss: Tensor | None = None
    mask_losses: dict[str, Tensor] | None = None
    location_loss: Tensor | None = None
    policy_loss: Tensor | None = None
    policy_kl: Tensor | None = None
    policy_cut: Tensor | None = None
    low_res_logits: tuple[Tensor, ...] | None = None
    tokens: Tensor | None = None
    hidden_states: Tensor | None = None

    def __getattr__(self, name: str) -> Tensor | None:
        """The parts of the mask loss by name."""
        if name not in {key.log for key in MASK_LOSSES}:
            raise AttributeError(f"the output has no {name}")
        return None if self.mask_losses is None else self.mask_losses[name]


class CoresModel(PreTrainedModel):
    """The model of a `CoresConfig`.

    Weights: `mllm.*` (a LLaVA's names), `segmenter.*` (its family's names), `projection.*`, `refiner.*`.
    `max_new_tokens`: most tokens of an answer, where nobody says otherwise; kept in `generation_config.json`.
    `masks_per_pass`: most masks that the mask decoder works on at once: bounds the memory, changes no number;
    `checkpoint_decoder`: in training it computes each level again for its gradients: less memory, more time.
    """

    config_class = CoresConfig
    config: Any  # a CoresConfig
    base_model_prefix = "cores"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True

    def __init__(self, config: CoresConfig) -> None:
        super().__init__(config)
        self.mllm = make_mllm(config.mllm_config)
        if self.mllm.packs:
            LastLayer(self.mllm.get_decoder().layers[-1])
        self.segmenter = make_segmenter(config.segmenter_config)
        self._add_new_parts()
        self.max_new_tokens = MAX_NEW_TOKENS
        self.masks_per_pass = MASKS_PER_PASS
        self.checkpoint_decoder = False
        self.post_init()

    def _add_new_parts(self) -> None:
        """What neither base has: the projection and, where a mask guides another, the refiner."""
        width, dim = self.mllm.width, self.segmenter.dim
        # from a state of the language model to a prompt token (paper section 3.2)
        self.projection = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, dim))
        self.refiner = make_refiner(self.config.refiner, dim) if self.config.is_guided else None

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: every part begins as PyTorch or its own family made it; `from_bases` says what is new."""

    @classmethod
    def from_bases(cls, config: CoresConfig, mllm: PreTrainedModel, segmenter: PreTrainedModel) -> "CoresModel":
        """A model whose multimodal LLM and segmenter are these; projection and refiner are new.

        The tensors are shared, not copied.
        Raises CheckpointError when a base's tensors are not the config's.
        """
        with torch.device("meta"):
            model = cls(config)
        model._add_new_parts()
        for name, part in (("mllm", mllm), ("segmenter", segmenter)):
            target = getattr(model, name)
            state = part.state_dict()
            refuse_differences(f"the {name}", target.state_dict(), state)
            target.load_state_dict(state, strict=True, assign=True)
        model.mllm.tie_weights()
        model.segmenter.tie_weights()
        _fill_unsaved_buffers(model, mllm, segmenter)
        return model

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, *args: Any, **kwargs: Any) -> "CoresModel":
        """As transformers', but strict: nothing is ever loaded partly.

        Raises CheckpointError that names every missing, unexpected and wrong-shaped tensor, those with NaN, and when
        `generation_config.json` cannot be used.
        """
        max_new_tokens = read_max_new_tokens(pretrained_model_name_or_path, **kwargs)
        kwargs.setdefault("ignore_mismatched_sizes", True)  # so that all of them can be named, below
        model, info = super().from_pretrained(pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs)
        refuse(pretrained_model_name_or_path, info["missing_keys"], info["unexpected_keys"], info["mismatched_keys"])
        refuse_broken(pretrained_model_name_or_path, model.state_dict())
        loaded: CoresModel = model
        loaded.max_new_tokens = max_new_tokens
        return loaded

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """As transformers', under this model's own names: it would write the LLaVA's by an older layout."""
        kwargs.setdefault("save_original_format", False)
        super().save_pretrained(save_directory, **kwargs)
        if kwargs.get("is_main_process", True):
            write_generation_config(save_directory, self.config, self.max_new_tokens)

    def get_input_embeddings(self) -> nn.Module:
        table: nn.Module = self.mllm.get_input_embeddings()
        return table

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.mllm.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        head: nn.Module = self.mllm.get_output_embeddings()
        return head

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.mllm.set_output_embeddings(value)

    @property
    def loss_mask_size(self) -> int | None:
        """Side of the low-res masks at which the losses are taken; None where they are at the pictures' own sizes."""
        return self.segmenter.mask_size if self.config.loss_resolution == "low" else None

    def encode(self, segmenter_pixels: Tensor) -> Features:
        """The segmenter's features of pictures (images, 3, side, side); do it once per image and ask often.

        On a CPU one picture at a time, the same numbers: what is between two layers stays small, and in the cache.
        """
        alone = segmenter_pixels.device.type == "cpu" and not torch.is_grad_enabled()
        parts = segmenter_pixels.split(1) if alone else [segmenter_pixels]
        found = [self.segmenter.encode(part) for part in parts]
        return found[0] if len(found) == 1 else Features.cat(found)

    def segment(
        self,
        features: Features,
        tokens: Tensor,
        image_index: Tensor,
        use_location: bool = True,
        masks_per_pass: int | None = None,
        refine: bool = False,
        rated: list[Tensor] | None = None,
    ) -> list[Tensor]:
        """Low-res logits (masks, H, W) of each level.

        Args: as `run_chain`'s; `masks_per_pass` None: the model's; `refine`: the last level is decoded once more, with
        its own mask as its prompt; `rated`: is given the decoder's guesses of the last level's IoU.
        """
        most = self.masks_per_pass if masks_per_pass is None else masks_per_pass
        again = self.checkpoint_decoder
        guided = use_location and self.config.is_guided
        twice = guided and self.config.segmenting == "twice"
        steps = torch.cat([tokens, tokens[-1:]]) if twice else tokens
        masks = run_chain(
            self.segmenter, self.refiner, features, steps, image_index, guided, most, again, None if refine else rated
        )
        found = masks[1:] if twice else masks  # one a level
        if refine:
            found[-1] = refine_once(self.segmenter, self.refiner, features, tokens[-1], image_index, found[-1], rated)
        return found

    def forward(
        self,
        input_ids: Tensor,
        segment_ids: Tensor,
        pixel_values: Tensor,
        segmenter_pixels: Tensor | None = None,
        labels: Tensor | None = None,
        token_positions: Tensor | None = None,
        image_index: Tensor | None = None,
        truth: Sequence[Tensor] | None = None,
        location_truth: Sequence[Tensor | None] | None = None,
        ignore: Sequence[Tensor | None] | None = None,
        sizes: Sequence[Size] | None = None,
        resized: Sequence[Size] | None = None,
        features: Features | None = None,
        pixel_extras: Mapping[str, Tensor] | None = None,
        supervised: Tensor | None = None,
        rows: Sequence[int] | None = None,
        counts: Mapping[str, Tensor | int] | None = None,
        drawn: Drawn | None = None,
    ) -> CoresOutput:
        """Losses and masks of a packed batch.

        Args: `input_ids`, `segment_ids`, `labels` (images, tokens), see `packing`; `pixel_values` (images, 3, s, s)
        for the language model, or as its family has them, with `pixel_extras`, what else its image processor gives;
        `segmenter_pixels` (images, 3, S, S), or ready `features` of the pictures; `token_positions` (levels, masks):
        where each grounding token is predicted; `image_index` (masks,): its row; `truth`, `location_truth`: one (h, w)
        bool a mask; `ignore`: one (h, w) bool or None an image; `sizes`, `resized`: (h, w) of each picture and of it
        inside the segmenter's square, in pixels. `supervised` (supervised,): see `packing.supervised_places`; `rows`:
        `image_index` as plain numbers; without them the device is asked, and waited for. `counts`: how many of each of
        `loss_keys.COUNTED` the losses are means over, more than are here where this is a part of a step; numbers or
        int64 scalars. None: as are here. `drawn`: answers in the rows that are learned from by their rewards.
        Raises ValueError when masks or their losses are asked for without what they are made of.
        """
        if features is None and image_index is not None and len(image_index):  # without masks nothing is looked at
            # before the language model keeps its states: what the encoder takes meanwhile is free again by then
            features = self._features(segmenter_pixels)
        pixels = {"pixel_values": pixel_values, **(pixel_extras or {})}
        if labels is not None and supervised is None:
            supervised = supervised_places(labels)
        asked = None  # (levels, masks): places of the states that predict grounding tokens, which the head reads too
        if token_positions is not None and image_index is not None:
            asked = image_index * input_ids.shape[1] + token_positions
        places = (supervised, asked, None if drawn is None else drawn.places)
        reads = [one.flatten() for one in places if one is not None]
        alone = torch.cat(reads) if self.training and reads else None
        states = packed_states(self.mllm, input_ids, segment_ids, pixels, alone)
        output = CoresOutput(hidden_states=states)
        if labels is not None and supervised is not None:
            output.text_loss = self._text_loss(states, labels, supervised, counts)

        if asked is not None and image_index is not None:
            grounding = states.flatten(0, 1).index_select(0, asked.flatten()).unflatten(0, asked.shape)
            output.tokens = self.projection(grounding.to(next(self.projection.parameters()).dtype))
            if features is not None and len(image_index):
                output.low_res_logits = tuple(self.segment(features, output.tokens, image_index))
            else:
                side = self.segmenter.mask_size
                output.low_res_logits = tuple(tokens.new_zeros((0, side, side)) for tokens in output.tokens)
            if truth is not None:
                if sizes is None or resized is None:
                    raise ValueError("losses of masks are asked for: give sizes and resized of the pictures")
                rows = image_index.tolist() if rows is None else rows
                left_out = ignore if ignore is not None and self.config.ignore_255 else [None] * len(sizes)
                frames = Frames(self.segmenter.image_size, sizes, resized, left_out, self.segmenter.fit)
                self._mask_losses(output, truth, location_truth, rows, frames, counts)
        if drawn is not None:
            self._policy_loss(output, states, drawn, counts)
        parts = (self.config.text_weight, output.text_loss), (self.config.mask_weight, output.mask_loss)
        weighted = [weight * part for weight, part in (*parts, (1.0, output.policy_loss)) if part is not None]
        if weighted:
            output.loss = functools.reduce(operator.add, weighted)
        return output

    def _features(self, pixels: Tensor | None) -> Features:
        """The features of a batch's pictures."""
        if pixels is None:
            raise ValueError("masks are asked for: give segmenter_pixels, or features of them")
        trains = any(p.requires_grad for p in self.segmenter.vision_encoder.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and trains):
            return self.encode(pixels)

    def _text_loss(
        self,
        states: Tensor,
        labels: Tensor,
        places: Tensor,
        counts: Mapping[str, Tensor | int] | None = None,
    ) -> Tensor:
        """One mean over all supervised tokens (reference: published programs)."""
        logits: Tensor = self.mllm.logits(states.flatten(0, 1).index_select(0, places))  # (supervised, vocabulary)
        total = F.cross_entropy(logits.float(), labels.flatten()[places + 1], reduction="sum")
        return share(total, len(places) if counts is None else counts["tokens"])

    def _policy_loss(
        self, output: CoresOutput, states: Tensor, drawn: Drawn, counts: Mapping[str, Tensor | int] | None
    ) -> None:
        """Means over the tokens of all drawn answers."""
        logits: Tensor = self.mllm.logits(states.flatten(0, 1).index_select(0, drawn.places))  # (tokens, vocabulary)
        said = -F.cross_entropy(logits.float() / drawn.temperature, drawn.words, reduction="none")
        count = len(drawn.words) if counts is None else counts["drawn"]
        output.policy_loss, output.policy_kl, output.policy_cut = (
            share(total, count) for total in policy_losses(said, drawn)
        )

    def _mask_losses(
        self,
        output: CoresOutput,
        truth: Sequence[Tensor],
        location_truth: Sequence[Tensor | None] | None,
        rows: Sequence[int],
        frames: Frames,
        counts: Mapping[str, Tensor | int] | None,
    ) -> None:
        """The mask losses of the last level, and of all before it where the location is known and weighs something."""
        config = self.config
        assert output.low_res_logits is not None
        how = (rows, frames, config.loss_resolution, config.balanced_bce)
        masks = len(truth) if counts is None else counts["masks"]
        parts = share(level_losses(output.low_res_logits[-1], truth, *how), masks)
        output.mask_losses = {str(key.log): part for key, part in zip(MASK_LOSSES, parts, strict=True)}
        output.mask_loss = self._weighted(parts)
        if not rows:  # still part of the graph, so that ranks without masks agree with the others
            others = [p for name, p in self.named_parameters() if not name.startswith("mllm.")]
            output.mask_loss = output.mask_loss + 0.0 * sum(p.sum() for p in others if p.requires_grad)
        if config.location_loss and location_truth is not None and len(output.low_res_logits) > 1:
            known = sum(mask is not None for mask in location_truth) if counts is None else counts["locations"]
            found = []
            for level, logits in zip(config.levels, output.low_res_logits[:-1], strict=False):
                parts = share(level_losses(logits, location_truth, *how), known)
                names = (f"{level['name']}_{key.log}" for key in MASK_LOSSES)
                output.mask_losses |= dict(zip(names, parts, strict=True))
                found.append(self._weighted(parts))
            output.location_loss = torch.stack(found).sum()
            output.mask_loss = output.mask_loss + config.location_loss * output.location_loss

    def _weighted(self, parts: Tensor) -> Tensor:
        """The sum of one level's mask losses (losses,), each by its weight."""
        weights = [getattr(self.config, key.config) for key in MASK_LOSSES]
        return torch.stack([weight * part for weight, part in zip(weights, parts, strict=True)]).sum()


def _fill_unsaved_buffers(model: CoresModel, mllm: nn.Module, segmenter: nn.Module) -> None:
    """Give buffers that no checkpoint holds (position numbers, rotary frequencies) the bases' values."""
    for target, source in ((model.mllm, mllm), (model.segmenter, segmenter)):
        values = dict(source.named_buffers())
        for name, buffer in list(target.named_buffers()):
            if buffer.is_meta:
                owner, _, leaf = name.rpartition(".")
                target.get_submodule(owner)._buffers[leaf] = values[name]
