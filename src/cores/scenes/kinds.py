"""The things of the synthetic world: which parts they have and what they look like, as one table.

A part is a list of shapes in the unit box of its object (x to the right, y down), painted in the order of the table:
`poly` (points), `disc` (centre x, y, radius x, y), `bar` (points of a thick line, thickness). Its paint is a
brightness (times the object's own colour) or the name of a fixed colour, so that the handle of a kettle looks like
the handle of a pan, and the object has to be found before the part.
"""

from dataclasses import dataclass

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Shape:
    """One painted shape. `points` in the unit box; `size`, in its unit: a bar's thickness, or a disc's two radii."""

    how: str  # poly | disc | bar
    points: tuple[Point, ...]
    size: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a kind. `paint`: brightness of the object's colour, or the name of a fixed colour."""

    name: str
    paint: float | str
    shapes: tuple[Shape, ...]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object. `aspect`: width over height. `plural`: the word for several of it."""

    name: str
    plural: str
    aspect: float
    parts: tuple[Part, ...]


def _poly(*points: Point) -> Shape:
    return Shape("poly", points)


def _box(left: float, top: float, right: float, bottom: float) -> Shape:
    return Shape("poly", ((left, top), (right, top), (right, bottom), (left, bottom)))


def _disc(x: float, y: float, rx: float, ry: float) -> Shape:
    return Shape("disc", ((x, y),), (rx, ry))


def _bar(thickness: float, *points: Point) -> Shape:
    return Shape("bar", points, (thickness,))


COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (205, 45, 45),
    "orange": (240, 140, 35),
    "yellow": (240, 215, 60),
    "green": (65, 155, 70),
    "blue": (55, 95, 210),
    "purple": (130, 65, 175),
    "pink": (245, 150, 190),
    "brown": (135, 85, 50),
}

FIXED: dict[str, tuple[int, int, int]] = {
    "dark": (60, 50, 50),
    "silver": (200, 205, 212),
    "glass": (175, 220, 240),
    "wood": (185, 145, 95),
    "leaf": (60, 130, 60),
    "white": (248, 246, 240),
}

LEARNED: tuple[Kind, ...] = (
    Kind(
        "kettle",
        "kettles",
        1.2,
        (
            Part("handle", "dark", (_bar(0.12, (0.2, 0.5), (0.24, 0.12), (0.66, 0.12), (0.7, 0.5)),)),
            Part("spout", 1.25, (_poly((0.68, 0.6), (0.9, 0.28), (1.0, 0.36), (0.78, 0.92), (0.66, 0.92)),)),
            Part("body", 1.0, (_disc(0.45, 0.72, 0.36, 0.28),)),
            Part("lid", 0.6, (_poly((0.22, 0.52), (0.32, 0.34), (0.58, 0.34), (0.68, 0.52)),)),
        ),
    ),
    Kind(
        "cup",
        "cups",
        1.15,
        (
            Part("handle", "dark", (_bar(0.14, (0.6, 0.28), (0.92, 0.3), (0.92, 0.66), (0.58, 0.72)),)),
            Part("bowl", 1.0, (_poly((0.02, 0.05), (0.7, 0.05), (0.6, 0.98), (0.12, 0.98)),)),
        ),
    ),
    Kind(
        "knife",
        "knives",
        2.3,
        (
            Part("blade", "silver", (_poly((0.0, 0.5), (0.14, 0.12), (0.58, 0.12), (0.58, 0.85), (0.1, 0.85)),)),
            Part("handle", 1.0, (_box(0.56, 0.2, 1.0, 0.8),)),
        ),
    ),
    Kind(
        "pan",
        "pans",
        1.9,
        (
            Part("handle", "dark", (_box(0.55, 0.36, 1.0, 0.66),)),
            Part("bowl", 1.0, (_disc(0.32, 0.5, 0.32, 0.5),)),
        ),
    ),
    Kind(
        "car",
        "cars",
        1.7,
        (
            Part("body", 1.0, (_poly((0.0, 0.42), (0.98, 0.42), (1.0, 0.8), (0.0, 0.8)),)),
            Part("roof", 0.65, (_poly((0.14, 0.44), (0.28, 0.02), (0.72, 0.02), (0.86, 0.44)),)),
            Part("window", "glass", (_poly((0.27, 0.4), (0.36, 0.14), (0.64, 0.14), (0.73, 0.4)),)),
            Part("wheel", "dark", (_disc(0.22, 0.8, 0.14, 0.2), _disc(0.78, 0.8, 0.14, 0.2))),
        ),
    ),
    Kind(
        "cart",
        "carts",
        1.6,
        (
            Part("handle", "wood", (_bar(0.13, (0.68, 0.5), (0.95, 0.08)),)),
            Part("box", 1.0, (_poly((0.0, 0.2), (0.78, 0.2), (0.7, 0.72), (0.08, 0.72)),)),
            Part("wheel", "dark", (_disc(0.38, 0.76, 0.2, 0.24),)),
        ),
    ),
    Kind(
        "house",
        "houses",
        1.0,
        (
            Part("chimney", 0.5, (_box(0.66, 0.02, 0.84, 0.4),)),
            Part("wall", 1.0, (_box(0.1, 0.42, 0.9, 1.0),)),
            Part("roof", 0.65, (_poly((0.0, 0.46), (0.5, 0.02), (1.0, 0.46)),)),
            Part("door", "wood", (_box(0.18, 0.58, 0.44, 1.0),)),
            Part("window", "glass", (_box(0.54, 0.56, 0.82, 0.84),)),
        ),
    ),
    Kind(
        "lamp",
        "lamps",
        0.75,
        (
            Part("pole", "silver", (_box(0.4, 0.4, 0.6, 0.9),)),
            Part("base", 0.6, (_poly((0.1, 1.0), (0.24, 0.82), (0.76, 0.82), (0.9, 1.0)),)),
            Part("shade", 1.0, (_poly((0.0, 0.46), (0.26, 0.0), (0.74, 0.0), (1.0, 0.46)),)),
        ),
    ),
    Kind(
        "chair",
        "chairs",
        0.75,
        (
            Part("leg", "wood", (_box(0.04, 0.62, 0.22, 1.0), _box(0.78, 0.62, 0.96, 1.0))),
            Part("back", 1.0, (_box(0.1, 0.0, 0.9, 0.5),)),
            Part("seat", 0.6, (_poly((0.1, 0.48), (0.9, 0.48), (1.0, 0.7), (0.0, 0.7)),)),
        ),
    ),
    Kind(
        "umbrella",
        "umbrellas",
        1.0,
        (
            Part("shaft", "silver", (_box(0.44, 0.4, 0.56, 0.8),)),
            Part("handle", "dark", (_bar(0.14, (0.5, 0.72), (0.5, 0.92), (0.72, 0.92), (0.74, 0.76)),)),
            Part(
                "canopy",
                1.0,
                (_poly((0.0, 0.48), (0.08, 0.22), (0.28, 0.06), (0.5, 0.0), (0.72, 0.06), (0.92, 0.22), (1.0, 0.48)),),
            ),
        ),
    ),
    Kind(
        "boat",
        "boats",
        1.1,
        (
            Part("mast", "wood", (_box(0.46, 0.0, 0.56, 0.76),)),
            Part(
                "sail",
                "white",
                (_poly((0.56, 0.06), (0.96, 0.6), (0.56, 0.6)), _poly((0.46, 0.1), (0.46, 0.6), (0.1, 0.6))),
            ),
            Part("hull", 1.0, (_poly((0.0, 0.68), (1.0, 0.68), (0.84, 1.0), (0.18, 1.0)),)),
        ),
    ),
    Kind(
        "flower",
        "flowers",
        0.7,
        (
            Part("stem", "leaf", (_bar(0.13, (0.5, 0.4), (0.5, 0.8)), _disc(0.74, 0.6, 0.2, 0.08))),
            Part(
                "petals",
                1.0,
                tuple(
                    _disc(0.5 + 0.26 * x, 0.26 + 0.17 * y, 0.25, 0.16)
                    for x, y in ((0, -0.6), (0.95, 0), (0.6, 0.8), (-0.6, 0.8), (-0.95, 0))
                ),
            ),
            Part("pot", 0.6, (_poly((0.12, 0.72), (0.88, 0.72), (0.74, 1.0), (0.26, 1.0)),)),
        ),
    ),
    Kind(
        "fish",
        "fish",
        1.7,
        (
            Part("tail", 0.6, (_poly((0.7, 0.5), (1.0, 0.12), (1.0, 0.9)),)),
            Part("fin", 1.3, (_poly((0.3, 0.3), (0.46, 0.0), (0.66, 0.06), (0.62, 0.36)),)),
            Part("body", 1.0, (_disc(0.44, 0.56, 0.36, 0.36),)),
            Part("head", 0.75, (_poly((0.04, 0.56), (0.14, 0.34), (0.28, 0.24), (0.28, 0.88), (0.14, 0.78)),)),
        ),
    ),
)

OWN: tuple[Kind, ...] = (
    Kind(
        "saw",
        "saws",
        2.2,
        (
            Part("blade", "silver", (_poly((0.0, 0.3), (0.64, 0.1), (0.64, 0.9), (0.0, 0.7)),)),
            Part("handle", 1.0, (_poly((0.6, 0.0), (0.9, 0.05), (1.0, 0.5), (0.9, 0.95), (0.6, 1.0)),)),
        ),
    ),
    Kind(
        "truck",
        "trucks",
        1.9,
        (
            Part("box", 1.0, (_box(0.0, 0.02, 0.62, 0.76),)),
            Part("cabin", 0.6, (_poly((0.64, 0.24), (0.88, 0.24), (1.0, 0.5), (1.0, 0.76), (0.64, 0.76)),)),
            Part("wheel", "dark", (_disc(0.2, 0.8, 0.13, 0.2), _disc(0.78, 0.8, 0.13, 0.2))),
        ),
    ),
    Kind(
        "bucket",
        "buckets",
        0.9,
        (
            Part("handle", "dark", (_bar(0.12, (0.1, 0.42), (0.22, 0.08), (0.78, 0.08), (0.9, 0.42)),)),
            Part("bowl", 1.0, (_poly((0.0, 0.36), (1.0, 0.36), (0.84, 1.0), (0.16, 1.0)),)),
        ),
    ),
    Kind(
        "rocket",
        "rockets",
        0.6,
        (
            Part(
                "fin", 0.6, (_poly((0.3, 0.5), (0.0, 0.86), (0.3, 0.86)), _poly((0.7, 0.5), (1.0, 0.86), (0.7, 0.86)))
            ),
            Part("body", 1.0, (_box(0.24, 0.26, 0.76, 0.86),)),
            Part("nose", 0.6, (_poly((0.24, 0.28), (0.5, 0.0), (0.76, 0.28)),)),
            Part("flame", "white", (_poly((0.28, 0.86), (0.72, 0.86), (0.5, 1.0)),)),
        ),
    ),
    Kind(
        "guitar",
        "guitars",
        2.1,
        (
            Part("neck", "wood", (_box(0.5, 0.4, 0.9, 0.62),)),
            Part("body", 1.0, (_disc(0.2, 0.5, 0.2, 0.5), _disc(0.42, 0.5, 0.16, 0.36))),
            Part("head", 0.55, (_box(0.86, 0.28, 1.0, 0.74),)),
        ),
    ),
    Kind(
        "windmill",
        "windmills",
        0.9,
        (
            Part("tower", 1.0, (_poly((0.34, 0.3), (0.66, 0.3), (0.82, 1.0), (0.18, 1.0)),)),
            Part("door", "wood", (_box(0.4, 0.72, 0.6, 1.0),)),
            Part("sail", "white", (_bar(0.13, (0.1, 0.0), (0.9, 0.64)), _bar(0.13, (0.9, 0.0), (0.1, 0.64)))),
        ),
    ),
    Kind(
        "tree",
        "trees",
        0.85,
        (
            Part("trunk", "wood", (_box(0.38, 0.5, 0.62, 1.0),)),
            Part("crown", 1.0, (_disc(0.5, 0.32, 0.46, 0.32),)),
        ),
    ),
    Kind(
        "clock",
        "clocks",
        1.0,
        (
            Part("bell", 0.6, (_disc(0.24, 0.14, 0.2, 0.14), _disc(0.76, 0.14, 0.2, 0.14))),
            Part("case", 1.0, (_disc(0.5, 0.56, 0.46, 0.44),)),
            Part("face", "white", (_disc(0.5, 0.56, 0.28, 0.27),)),
        ),
    ),
)

KINDS: dict[str, Kind] = {kind.name: kind for kind in LEARNED + OWN}
PARTS: tuple[str, ...] = tuple(dict.fromkeys(part.name for kind in LEARNED + OWN for part in kind.parts))
