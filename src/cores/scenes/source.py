"""Scenes as a source of samples: `scenes|train`, `test`, `novel`, `phrasing`, and `own` for kinds never learned."""

from dataclasses import dataclass

from cores.data.sample import Sample
from cores.errors import DataError
from cores.scenes.kinds import LEARNED, OWN, Kind
from cores.scenes.questions import conversation_of, draw_questions
from cores.scenes.scene import Scene, make_scene

FIRST_SEED = {"train": 1_000_000, "test": 0, "novel": 100_000, "phrasing": 200_000, "val": 300_000}
DEFAULT_COUNT = {"train": 60_000, "test": 200, "novel": 200, "phrasing": 200, "val": 100}
SEEDS = 100_000  # of each split but `train`, which goes on to the next world seed
KIND_SETS: dict[str, tuple[Kind, ...]] = {"learned": LEARNED, "own": OWN}


@dataclass(frozen=True)
class Scenes:
    """Scenes of one split, drawn when asked for. Item i depends on the split, the seed and i alone.

    `count`: how many; `seed` shifts to other scenes of the same split; `questions`: most asked about one scene;
    `size`: side in pixels.
    """

    split: str
    count: int
    seed: int = 0
    kinds: str = "learned"
    questions: int = 6
    size: int = 128

    @property
    def name(self) -> str:
        """How `open_source` calls it: `scenes|SPLIT`, with `|KINDS` for others than the learned ones."""
        return f"scenes|{self.split}" if self.kinds == "learned" else f"scenes|{self.split}|{self.kinds}"

    def __len__(self) -> int:
        return self.count

    def scene_seed(self, i: int) -> int:
        """The seed of scene i. Raises IndexError beyond the end."""
        if not 0 <= i < self.count:
            raise IndexError(f"{self.name} has {self.count} scenes, there is no number {i}")
        return FIRST_SEED[self.split] + self.seed * 10_000_000 + i

    def scene(self, i: int) -> Scene:
        """Scene i, drawn. Raises IndexError beyond the end."""
        return make_scene(self.scene_seed(i), KIND_SETS[self.kinds], self.size)

    def __getitem__(self, i: int) -> Sample:
        """Scene i with its questions; the picture is a Pillow image, not a file."""
        scene, seed = self.scene(i), self.scene_seed(i)
        asked = draw_questions(scene, KIND_SETS[self.kinds], seed, self.questions, self.split)
        return Sample(
            image=scene.picture,
            size=(self.size, self.size),
            conversations=tuple(conversation_of(scene, q) for q in asked),
            meta={"source": self.name, "name": f"{self.split}-{seed}", "kinds": [q.family for q in asked]},
        )


def open_scenes(
    split: str = "test", n: int | None = None, seed: int = 0, kinds: str = "learned", size: int = 128
) -> Scenes:
    """Scenes of a split. `n`: how many (None: the split's default); `size`: side in pixels.

    Raises DataError for an unknown split or kinds, and for more scenes than the split has.
    """
    if split not in FIRST_SEED:
        raise DataError(f"scenes|{split}: there is no such split, take one of {', '.join(FIRST_SEED)}")
    if kinds not in KIND_SETS:
        raise DataError(f"scenes kinds {kinds!r}: take one of {', '.join(KIND_SETS)}")
    if n is not None and split != "train" and n > SEEDS:
        raise DataError(f"scenes|{split}: {n} scenes asked for, there are {SEEDS}: beyond them begins another split")
    return Scenes(split, DEFAULT_COUNT[split] if n is None else n, seed, kinds, size=size)
