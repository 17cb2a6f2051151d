"""Example pictures for the page: scenes of the test split, drawn when the page is built."""

import base64
from html import escape
from io import BytesIO

from PIL import Image

from cores.scenes.source import open_scenes

SIDE = 384  # pixels
# Number of the scene, and what to ask about it: by what a thing is for, several at once, a part, what is not there.
EXAMPLES: dict[int, tuple[str, ...]] = {
    6: ("find what has rooms and a kitchen.", "car on the left and the house", "windows of the house"),
    10: (
        "which one do you sip a hot drink from, the green one on the left?",
        "handle of the cup on the left",
        "point to the one that the raindrops fall on.",
    ),
    2: ("pan at the bottom and the pan at the top", "Where is the thing that is filled with coffee or milk?"),
    7: ("the thing you would chop onions with", "leg of the purple chair"),
}


def examples_html() -> str:
    """A button for each example, its picture and its questions inside."""
    scenes = open_scenes("test", max(EXAMPLES) + 1, size=SIDE)
    return "".join(_button(n, scenes.scene(n).picture, queries) for n, queries in EXAMPLES.items())


def _button(number: int, picture: Image.Image, queries: tuple[str, ...]) -> str:
    file = BytesIO()
    picture.save(file, "PNG", optimize=True)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    first, items = escape(queries[0]), "".join(f"<li>{escape(query)}</li>" for query in queries)
    return (
        f'<button type="button" class="example" data-name="scene-{number}.png" aria-label="Example: {first}">'
        f'<img alt="" width="{SIDE}" height="{SIDE}" src="data:image/png;base64,{data}" />'
        f"<span>{first}</span><ul hidden>{items}</ul></button>"
    )
