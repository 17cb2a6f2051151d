"""COCO's instances file: one JSON for many pictures, which `pycocotools.COCO` and our own `coco:PATH` read."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cores import masks
from cores.errors import DataError
from cores.outlines import box_of

if TYPE_CHECKING:
    from cores.inference.segmentation import Segmentation


class CocoFile:
    """An instances file that grows picture by picture. `to_dict` is it, ready for JSON.

    A picture is there even when nothing was found in it. A category is a query, and an annotation is a target: its
    mask as compressed run lengths, which hold holes where polygons cannot; beside COCO's own fields its `score` and
    the `phrase` that the answer calls it by. An empty mask makes no annotation.
    """

    def __init__(self) -> None:
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.categories: dict[str, int] = {}

    def add(self, picture: str, results: Sequence["Segmentation"]) -> None:
        """The answers about one picture; `picture`: its file's name. Raises DataError for answers of two sizes."""
        height, width = size_of(picture, results)
        self.images.append({"id": len(self.images) + 1, "file_name": picture, "height": height, "width": width})
        for found in results:
            category = self.categories.setdefault(found.query.strip(), len(self.categories) + 1)
            for target in found.targets:
                if (box := box_of(target.rle)) is None:
                    continue
                left, top, right, bottom = box
                annotation = {
                    "id": len(self.annotations) + 1,
                    "image_id": len(self.images),
                    "category_id": category,
                    "segmentation": target.rle,
                    "area": masks.area(target.rle),
                    "bbox": [left, top, right - left, bottom - top],
                    "iscrowd": 0,
                    "score": target.score,
                    "phrase": target.phrase,
                }
                self.annotations.append(annotation)

    def to_dict(self) -> dict[str, Any]:
        """The whole file."""
        categories = [{"id": number, "name": name} for name, number in self.categories.items()]
        info = {"description": "masks predicted by cores"}
        return {
            "info": info,
            "images": self.images,
            "annotations": self.annotations,
            "categories": categories,
        }


def to_coco(answers: Mapping[str, Sequence["Segmentation"]]) -> dict[str, Any]:
    """The answers about each picture, by its file's name, as one instances file (`CocoFile`), ready for JSON.

    Raises DataError for a picture without answers, whose size nobody knows, and for answers of two sizes.
    """
    file = CocoFile()
    for picture, results in answers.items():
        file.add(picture, results)
    return file.to_dict()


def size_of(picture: str, results: Sequence["Segmentation"]) -> tuple[int, int]:
    """(H, W) of the picture that answers are about. Raises DataError for none, and for answers of two sizes."""
    sizes = {found.size for found in results}
    if len(sizes) != 1:
        told = "answers about pictures of different sizes" if sizes else "no answer, so that its size is not known"
        raise DataError(f"{picture}: there are {told}")
    return sizes.pop()
