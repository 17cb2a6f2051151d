"""Score a model on questions that exist only in your own program: a `Sample` is a picture and masks as arrays.

    python examples/evaluate.py [MODEL]

For data in files there is `cores eval`, with intervals, a report and protection against kills. Here, three questions
about each of some drawn scenes: an object by its name, a part of it, and something that is not there.
"""

import sys
from collections.abc import Iterator

import cores
from cores import Conversation, Sample, Target, Turn
from cores.masks import encode
from cores.scenes.kinds import LEARNED
from cores.scenes.scene import Scene, make_scene

SCENES, SIDE = 12, 128


def main(model: str | None = None, scenes: int = SCENES) -> None:
    """Ask, print the figures, and the three questions that went worst."""
    loaded = cores.load(model)
    assert isinstance(loaded, cores.Cores)
    samples = [sample_of(make_scene(seed, LEARNED, SIDE)) for seed in range(700, 700 + scenes)]
    result = cores.evaluate(loaded.model, loaded.processor, samples, records=True, progress=False)

    for mode, score in result.scores.items():
        figures, count = score.masks.compute(), score.masks.count
        sys.stdout.write(f"{mode}: gIoU {figures['giou']:.3f}, cIoU {figures['ciou']:.3f} over {count} masks\n")
    generated = [record for record in result.records if record.mode == "generated"]
    for record in sorted(generated, key=lambda record: record.iou)[:3]:
        sys.stdout.write(f"IoU {record.iou:.2f}: {record.query!r}: {record.sentence}\n")


def sample_of(scene: Scene) -> Sample:
    """A scene and what is asked about it. A mask is (h, w) bool, of the picture's own size."""
    return Sample(scene.picture, (scene.picture.height, scene.picture.width), tuple(questions(scene)))


def questions(scene: Scene) -> Iterator[Conversation]:
    """Each is a conversation of its own, so that no answer sees another."""
    names = [thing.kind.name for thing in scene.things]
    for number, thing in enumerate(scene.things):
        if names.count(thing.kind.name) == 1 and scene.mask(number).any():
            whole = encode(scene.mask(number))
            yield Conversation((Turn(f"the {thing.kind.name}", targets=(Target(whole),)),))
            part = thing.kind.parts[0].name
            if scene.mask(number, part).any():
                target = Target(encode(scene.mask(number, part)), location=whole)
                yield Conversation((Turn(f"the {part} of the {thing.kind.name}", targets=(target,)),))
            break
    absent = next(kind.name for kind in LEARNED if kind.name not in names)
    yield Conversation((Turn(f"the {absent}"),))  # no targets and no answer: it is not there


if __name__ == "__main__":
    main(*sys.argv[1:2])
