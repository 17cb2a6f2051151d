"""From a seed to a picture whose every pixel is known: which object it shows and which part of it.

Legend: h = w = the picture's side in pixels. Object ids count from 0 in painting order, -1 is the background.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cores.masks import Mask
from cores.scenes.kinds import COLOURS, FIXED, Kind, Shape

SHARPNESS = 2  # the picture is painted this many times larger and scaled down: soft edges
OUTLINE = 0.45  # brightness of a shape's edge


@dataclass(frozen=True, slots=True)
class Thing:
    """One object of a scene. `box`: left, top, width, height as shares of the picture's side; `turn` in degrees."""

    kind: Kind
    colour: str
    box: tuple[float, float, float, float]
    turn: float
    flipped: bool

    @property
    def centre(self) -> tuple[float, float]:
        """The middle of its box, (x, y) as shares of the picture's side."""
        return self.box[0] + self.box[2] / 2, self.box[1] + self.box[3] / 2


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture and the truth about it.

    `objects` (h, w): object id of each pixel, -1 nothing. `parts` (h, w): index into that object's parts, -1 nothing.
    `whole`: pixels of each object before others were painted over it.
    """

    picture: Image.Image
    things: tuple[Thing, ...]
    objects: NDArray[np.int8]
    parts: NDArray[np.int8]
    whole: tuple[int, ...]

    def mask(self, thing: int, part: str | None = None) -> Mask:
        """The visible pixels (h, w) of an object or of one of its parts."""
        found: Mask = self.objects == thing
        if part is not None:
            names = [p.name for p in self.things[thing].kind.parts]
            found = found & (self.parts == names.index(part))
        return found


def make_scene(seed: int, kinds: tuple[Kind, ...], size: int = 128) -> Scene:
    """The scene of a seed: the same seed, kinds and size give the same pixels.

    Args: `kinds` to choose from; `size` the picture's side in pixels.
    """
    rng = np.random.default_rng(seed)
    things = _arrange(rng, kinds)
    canvas = _background(rng, size * SHARPNESS)
    objects = np.full((size, size), -1, dtype=np.int8)
    parts = np.full((size, size), -1, dtype=np.int8)
    paint = ImageDraw.Draw(canvas)
    whole = []
    for number, thing in enumerate(things):
        own = Image.new("L", (size, size), 0)
        label = ImageDraw.Draw(own)
        main = np.array(COLOURS[thing.colour], dtype=float) * rng.uniform(0.88, 1.08)
        for index, part in enumerate(thing.kind.parts):
            if isinstance(part.paint, str):
                colour = np.array(FIXED[part.paint], dtype=float) * rng.uniform(0.92, 1.05)
            else:
                colour = main * part.paint
            fill = tuple(int(v) for v in colour.clip(0, 255))
            edge = tuple(int(v) for v in (colour * OUTLINE).clip(0, 255))
            for shape in part.shapes:
                _paint(paint, thing, shape, size * SHARPNESS, fill, edge)
                _paint(label, thing, shape, size, index + 1, index + 1)
        ids = np.asarray(own, dtype=np.int8)
        seen = ids > 0
        objects[seen] = number
        parts[seen] = ids[seen] - 1
        whole.append(int(seen.sum()))
    picture = canvas.resize((size, size), Image.Resampling.BOX)
    return Scene(picture, tuple(things), objects, parts, tuple(whole))


def _arrange(rng: np.random.Generator, kinds: tuple[Kind, ...]) -> list[Thing]:
    """Three to five things; often two of a kind, so that colour or place must tell them apart."""
    wanted = int(rng.integers(3, 6))
    chosen: list[tuple[Kind, str]] = []
    while len(chosen) < wanted:
        kind = kinds[int(rng.integers(len(kinds)))]
        if chosen and rng.random() < 0.3:
            kind = chosen[int(rng.integers(len(chosen)))][0]
        colour = list(COLOURS)[int(rng.integers(len(COLOURS)))]
        if sum(k is kind for k, _ in chosen) < 2 and (kind, colour) not in chosen:
            chosen.append((kind, colour))
    things: list[Thing] = []
    for kind, colour in chosen:
        for _ in range(40):
            longest = rng.uniform(0.34, 0.5)
            aspect = kind.aspect * rng.uniform(0.9, 1.1)
            width, height = (longest, longest / aspect) if aspect > 1 else (longest * aspect, longest)
            left, top = rng.uniform(0.01, 0.99 - width), rng.uniform(0.01, 0.99 - height)
            box = (float(left), float(top), float(width), float(height))
            if all(_overlap(box, other.box) < 0.22 for other in things):
                turn, flipped = float(rng.uniform(-12, 12)), bool(rng.random() < 0.5)
                things.append(Thing(kind, colour, box, turn, flipped))
                break
    return things


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Shared area of two boxes over the smaller one's."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(width, 0.0) * max(height, 0.0) / min(a[2] * a[3], b[2] * b[3])


def _background(rng: np.random.Generator, side: int) -> Image.Image:
    """A wall above a floor, in dull colours, with some marks that mean nothing."""
    wall = rng.uniform(195, 235) + rng.uniform(-14, 14, 3)
    floor = wall * rng.uniform(0.7, 0.9)
    canvas = Image.new("RGB", (side, side), tuple(int(v) for v in wall.clip(0, 255)))
    paint = ImageDraw.Draw(canvas)
    horizon = int(side * rng.uniform(0.35, 0.8))
    paint.rectangle((0, horizon, side, side), fill=tuple(int(v) for v in floor.clip(0, 255)))
    for _ in range(int(rng.integers(0, 7))):
        x, y, w, h = rng.uniform(0, 1, 4) * side
        shade = tuple(int(v) for v in (wall * rng.uniform(0.82, 1.04)).clip(0, 255))
        corner = (x, y, x + w * 0.3, y + h * 0.3)
        if rng.random() < 0.5:
            paint.rectangle(corner, fill=shade)
        else:
            paint.ellipse(corner, fill=shade)
    return canvas


def _paint(
    draw: ImageDraw.ImageDraw,
    thing: Thing,
    shape: Shape,
    side: int,
    fill: int | tuple[int, ...],
    edge: int | tuple[int, ...],
) -> None:
    """One shape of a thing, on a canvas of `side` pixels."""
    left, top, width, height = thing.box
    angle = math.radians(thing.turn)
    cos, sin = math.cos(angle), math.sin(angle)

    def place(x: float, y: float) -> tuple[float, float]:
        x = (0.5 - x if thing.flipped else x - 0.5) * width
        y = (y - 0.5) * height
        return (
            (left + width / 2 + x * cos - y * sin) * side,
            (top + height / 2 + x * sin + y * cos) * side,
        )

    if shape.how == "bar":
        points = [place(*p) for p in shape.points]
        thick = max(int(shape.size[0] * (width + height) / 2 * side + 0.5), 1)
        draw.line(points, fill=fill, width=thick, joint="curve")
        for x, y in (points[0], points[-1]):
            draw.ellipse((x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2), fill=fill)
        return
    if shape.how == "disc":
        (x, y), (rx, ry) = shape.points[0], shape.size
        turns = (2 * math.pi * k / 28 for k in range(28))
        points = [place(x + rx * math.cos(t), y + ry * math.sin(t)) for t in turns]
    else:
        points = [place(*p) for p in shape.points]
    draw.polygon(points, fill=fill, outline=edge, width=max(side // 128, 1))
