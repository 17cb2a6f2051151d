"""What one sees of a run beside its log: pictures of what it points at, and TensorBoard's files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import TensorBoardCallback

from cores.modeling.model import CoresModel
from cores.processing.processor import CoresProcessor
from cores.training.trainer import Evaluate, Score
from cores.whole import whole_file

PICTURES, BOARD = "pictures", "logs"  # of a run
# A model and its processor: a picture of what it points at, None when there is nothing to show.
Draw = Callable[[CoresModel, CoresProcessor], Image.Image | None]


class Pictures(TrainerCallback):
    """RUN/pictures/step-N.png at every evaluation. `picture`: the latest."""

    def __init__(self, run: Path, draw: Draw) -> None:
        self.folder, self.draw = run / PICTURES, draw
        self.picture: Image.Image | None = None

    def drawn_by(self, evaluate: Evaluate) -> Evaluate:
        """The evaluation, with the first rank's drawing as its last part."""

        def run(model: CoresModel, processor: CoresProcessor, rank: int, world: int) -> Score | None:
            self.picture = None  # of an evaluation that is cut there is none
            score = evaluate(model, processor, rank, world)
            if rank == 0:
                self.picture = self.draw(model, processor)
            return score

        return run

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Write the picture that was drawn last, in the first process."""
        if state.is_world_process_zero and self.picture is not None:
            self.folder.mkdir(exist_ok=True)
            with whole_file(self.folder / f"step-{state.global_step}.png") as part:
                self.picture.save(part)


class Board(TensorBoardCallback):
    """transformers' TensorBoard in RUN/logs, with the pictures. What a stopped run said too much is purged."""

    tb_writer: Any

    def __init__(self, run: Path, pictures: Pictures | None) -> None:
        super().__init__()
        self.logging_dir, self.pictures = str(run / BOARD), pictures

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Open the files."""
        self._open(state)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """As transformers'; a resumed run may begin with the evaluation that it owes."""
        self._open(state)
        super().on_log(args, state, control, **kwargs)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Show the picture that was drawn last."""
        if self.tb_writer is not None and self.pictures is not None and self.pictures.picture is not None:
            image = np.asarray(self.pictures.picture)
            self.tb_writer.add_image("pictures", image, state.global_step, dataformats="HWC")

    def _open(self, state: TrainerState) -> None:
        """In the first process, once; what the files say of later steps counts no more."""
        if state.is_world_process_zero and self.tb_writer is None:
            self.tb_writer = self._SummaryWriter(self.logging_dir, purge_step=state.global_step + 1)
