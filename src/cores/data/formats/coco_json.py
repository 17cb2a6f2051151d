"""COCO's JSON: images, annotations and categories, joined by their ids."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cores.data.formats.json_files import clipped, maybe, read_json, short, take, take_id
from cores.data.formats.names import is_blank
from cores.data.formats.picture_headers import Header
from cores.errors import DataError

Id = int | str


@dataclass(frozen=True, slots=True)
class CocoFile:
    """`images` and `annotations` as they stand in the file, by id; `categories`: names by id.

    Ids are whole numbers or text, "7" and 7 the same one; an annotation's `id` is written as it is read.
    """

    path: Path
    images: dict[Id, dict[str, Any]]
    categories: dict[Id, str]
    annotations: dict[Id, dict[str, Any]]

    def by_image(self) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
        """Every image in the file's order with its annotations by id. Raises DataError for one of an unknown image."""
        groups: dict[Id, list[dict[str, Any]]] = {number: [] for number in self.images}
        for number in sorted(self.annotations, key=lambda number: (isinstance(number, str), number)):
            where = self.where(self.annotations[number])
            image = take_id(self.annotations[number], "image_id", where)
            if image not in groups:
                raise DataError(f"{where}: image_id: there is no image {short(image)}")
            groups[image].append(self.annotations[number])
        return ((image, groups[number]) for number, image in self.images.items())

    def category(self, annotation: dict[str, Any]) -> str:
        """The name of an annotation's class. Raises DataError when there is none, or a blank one."""
        where = self.where(annotation)
        number = take_id(annotation, "category_id", where)
        if number not in self.categories:
            raise DataError(f"{where}: category_id: there is no category {short(number)}")
        if is_blank(self.categories[number]):
            raise DataError(f"{self.path}: category {clipped(number)}: name: is blank, expected what it is called")
        return self.categories[number]

    def where(self, annotation: dict[str, Any]) -> str:
        """An annotation, for messages."""
        return f"{self.path}: annotation {clipped(annotation['id'])}"


def read_coco(path: Path) -> CocoFile:
    """Read such a file. Raises DataError that names the field that is missing or of a wrong type."""
    content = read_json(path)

    def by_id(key: str) -> dict[Id, dict[str, Any]]:
        found: dict[Id, dict[str, Any]] = {}
        for place, record in enumerate(take(content, key, list, path)):
            number = take_id(record, "id", f"{path}: {key}: number {place}")
            record["id"] = number
            if found.setdefault(number, record) != record:
                raise DataError(f"{path}: {key}: number {place}: id: {short(number)} is another one's too")
        return found

    images, categories, annotations = by_id("images"), by_id("categories"), by_id("annotations")
    for number, image in images.items():
        if "file_name" not in image and isinstance(image.get("coco_url"), str):  # LVIS has addresses alone
            image["file_name"] = "/".join(image["coco_url"].split("/")[-2:])
        take(image, "file_name", str, f"{path}: image {clipped(number)}")
    names = {
        number: take(record, "name", str, f"{path}: category {clipped(number)}")
        for number, record in categories.items()
    }
    return CocoFile(path, images, names, annotations)


def size_of(image: dict[str, Any], where: str | Path) -> list[int] | None:
    """[h, w] as the file has it; None when it does not say. Raises DataError when it is no size."""
    size = [maybe(image, "height", int, where), maybe(image, "width", int, where)]
    if size == [None, None]:
        return None
    if not all(side is not None and 0 < side < 1 << 16 for side in size):
        raise DataError(f"{where}: height, width: found {short(size)}, expected pixels")
    return size  # type: ignore[return-value]


def stated_size(size: list[int] | None, header: Header, path: Path) -> tuple[int, int] | None:
    """The size (h, w) that a row of the index has from the file. Raises DataError when the picture has another."""
    if size is None:
        return None
    header.turn((size[0], size[1]), f"{path}: the size of {clipped(header.path.name)}")
    return size[0], size[1]
