"""Features of frozen encoders kept on disk: what one epoch computed, the next ones read.

One safetensors file a picture, named by the picture's content, in a folder named by the encoder's: weights, number
type and how pictures are prepared. Ranks, workers and runs share a folder; a file is there whole or not at all.

Legend: images = pictures of a batch.
"""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from cores.errors import UserError
from cores.modeling.segmenters.base import Features
from cores.whole import is_full, whole_file

log = logging.getLogger(__name__)
COARSE, FINE, COMPUTED = "coarse", "fine", "computed_in"


class FeatureCache:
    """Features by picture, below `folder`.

    Args:
        encoder: whose features they are (`fingerprint`); those of another are never read.
        rounded: keep them in bfloat16, at half the size; else exactly as they were computed.
        most: bytes that all files of this encoder may take together; then nothing more is written. What is there
            stays: with less room than pictures, taking turns would keep nothing from one epoch to the next.
    """

    def __init__(self, folder: Path, encoder: str, rounded: bool, most: float, writers: int = 1) -> None:
        self.folder = folder / (f"{encoder}-bfloat16" if rounded else encoder)
        self.rounded, self.most, self.writers = rounded, most, writers
        self.room: float | None = None  # that this process may still fill, from its first write on

    def read(self, key: str) -> Features | None:
        """The features (1, ...) of a picture, in the number type that they were computed in; None: not kept yet."""
        path = self._path(key)
        try:
            with safe_open(path, framework="pt") as file:
                dtype = getattr(torch, (file.metadata() or {})[COMPUTED])
                kept = {name: file.get_tensor(name).to(dtype) for name in file.keys()}  # noqa: SIM118
            fine = tuple(kept[f"{FINE}{number}"] for number in range(len(kept) - 1))
            return Features(kept[COARSE], fine)
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, KeyError, AttributeError) as error:
            log.warning("%s: cannot be read (%s): it is computed and written anew", path, error)
            return None

    def write(self, keys: Sequence[str], features: Features) -> None:
        """Keep the features (images, ...) of these pictures, while there is room. Raises UserError for a full disk."""
        for number, key in enumerate(keys):
            one = features[number : number + 1]
            parts = {COARSE: one.coarse, **{f"{FINE}{level}": value for level, value in enumerate(one.fine)}}
            kept = {
                name: value.detach().to("cpu", torch.bfloat16 if self.rounded else value.dtype).contiguous()
                for name, value in parts.items()
            }
            size = sum(value.numel() * value.element_size() for value in kept.values())
            if not self._has_room(size):
                return
            path = self._path(key)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with whole_file(path) as part:
                    save_file(kept, part, {COMPUTED: str(one.coarse.dtype).removeprefix("torch.")})
            except Exception as error:
                if is_full(error):
                    raise UserError(
                        f"{self.folder}: the disk is full: free some space, or set data.features_gb to what there is"
                    ) from error
                raise

    def __contains__(self, key: str) -> bool:
        return self._path(key).is_file()

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"

    def _has_room(self, size: int) -> bool:
        if self.room is None:
            taken = sum(file.stat().st_size for file in self.folder.glob("*/*.safetensors"))
            self.room = (self.most - taken) / self.writers
            if self.room < size:
                log.warning("%s: data.features_gb is reached: no more features are kept", self.folder)
        if self.room < size:
            self.room = 0.0
            return False
        self.room -= size
        return True


def picture_key(picture: Image.Image) -> str:
    """A picture's content, as 32 hexadecimal digits: the same for the same RGB pixels, whatever the file is called."""
    digest = hashlib.blake2b(repr((picture.mode, picture.size)).encode(), digest_size=16)
    digest.update(picture.tobytes())
    return digest.hexdigest()
