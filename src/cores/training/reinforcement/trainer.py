"""A run that learns from rewards: our Trainer, with answers drawn at the beginning of every step.

Answers are drawn with the weights that they then change, and learned from in one step (on-policy) or several. The
chain's usual losses, of given answers, may train in the same step.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cores.asking.asker import Asker
from cores.modeling.packed_states import packed_states
from cores.modeling.policy import Drawn
from cores.recipe import ReinforcementSection
from cores.training.reinforcement.drawn_batch import with_drawn, with_thoughts
from cores.training.reinforcement.reference import Start
from cores.training.reinforcement.rewards import Parts
from cores.training.reinforcement.rollout import Rolled, roll_out
from cores.training.trainer import CoresTrainer

FIGURES = ("reward", *(f"reward_{name}" for name in Parts._fields))
LOSSES = ("policy_loss", "policy_kl", "policy_cut")


class PolicyTrainer(CoresTrainer):
    """`CoresTrainer` with group-relative policy optimisation. `section`: how, of the recipe; `seed`: of exemplars."""

    def __init__(self, *, section: ReinforcementSection, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.section, self.seed = section, seed
        self.drawing = 0.0  # seconds that the last drawing took
        self.window: list[dict[str, Any]] = []  # the batches that the steps of one drawing learn from
        self.start = Start(self.model) if section.kl else None
        self.tally.names += [*LOSSES, *FIGURES]

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> dict[str, Tensor] | None:
        """As above, of batches that get their drawn answers first."""
        for batch in batch_samples:
            if "error" in batch:
                raise batch["error"]
        if self.window and self.state.global_step % self.section.updates:
            for batch, kept in zip(batch_samples, self.window, strict=True):
                batch.clear()
                batch.update(kept)
            return super()._get_num_items_in_batch(batch_samples, device)
        started = time.monotonic()
        rolled = [self._draw(batch) for batch in batch_samples]
        self.drawing = time.monotonic() - started
        counts = super()._get_num_items_in_batch(batch_samples, device)
        for batch, own in zip(batch_samples, rolled, strict=True):
            answers = max(len(own), 1) if counts is None else counts["answers"].clamp(min=1)
            batch["figures"] = {name: value.to(device) / answers for name, value in _sums(own).items()}
        self.window = [dict(batch) for batch in batch_samples] if self.section.updates > 1 else []
        return counts

    def _draw(self, batch: dict[str, Any]) -> list[Rolled]:
        """Put drawn answers into a batch."""
        samples, keys = batch.pop("samples"), batch.pop("keys")
        asker = Asker(self.model, self.processor, self.seed, self.section.max_new_tokens, think=self.section.think)
        with self._asked():
            rolled = roll_out(asker, samples, keys, self.section)
            pad = int(self.processor.tokenizer.pad_token_id or 0)
            if self.section.think and self.section.supervised:
                batch.update(with_thoughts(batch, rolled, pad))
            batch.update(with_drawn(batch, rolled, pad))
            if self.section.updates > 1:
                batch["drawn"]["old"] = self._sure(batch)
            if self.start is not None:
                with self.start.back():
                    batch["drawn"]["reference"] = self._sure(batch)
        return rolled

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """As above; what drawing answers takes is no waiting for data."""
        self.drawing = 0.0
        found = super().get_batch_samples(*args, **kwargs)
        self.tally.waited -= self.drawing
        return found

    @torch.no_grad()
    def _sure(self, batch: dict[str, Any]) -> Tensor:
        """The log-probabilities of all drawn words (drawn,) by the model as it is."""
        given = self._prepare_input({name: batch[name] for name in ("input_ids", "segment_ids", "drawn")})
        pixels = self._prepare_input({"pixel_values": batch["pixel_values"], **batch["pixel_extras"]})
        mllm = self.model.mllm
        states = packed_states(mllm, given["input_ids"], given["segment_ids"], pixels).flatten(0, 1)
        logits: Tensor = mllm.logits(states[given["drawn"]["places"]]).float() / self.section.temperature
        return logits.log_softmax(-1).gather(1, given["drawn"]["words"][:, None])[:, 0]

    @contextmanager
    def _asked(self) -> Iterator[None]:
        """Inside, the model answers, without dropout."""
        self.model.eval()
        try:
            with self.accelerator.autocast():
                yield
        finally:
            self.model.train()

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """As above, with the drawn answers' loss."""
        clip = (self.section.clip, self.section.clip if self.section.clip_high is None else self.section.clip_high)
        inputs["drawn"] = Drawn(**inputs["drawn"], clip=clip, kl=self.section.kl, temperature=self.section.temperature)
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    # A checkpoint between two steps of one drawing holds what was drawn: each rank its own.

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.window and self.state.global_step % self.section.updates:
            torch.save(self.window, self._window_file(output_dir))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and (file := self._window_file(checkpoint)).exists():
            self.window = torch.load(file, weights_only=True)

    def _window_file(self, folder: str) -> Path:
        return Path(folder) / f"drawn-{self.args.process_index}.pt"


def _sums(rolled: list[Rolled]) -> dict[str, Tensor]:
    """Of the rewards of some answers, by the names of `FIGURES`."""
    rows = torch.tensor([[one.reward, *one.parts] for one in rolled]).reshape(-1, len(FIGURES)).sum(0)
    return dict(zip(FIGURES, rows, strict=True))
