"""Folders of pictures with JSON files as labelme writes them: `labelme:PATH`.

With a field `text`, as ReasonSeg has it, every text asks for the union of the file's shapes. Without it every label is
asked for by name, and so is what is not there by a ticked flag of the picture, "absent: NAME". Shapes labelled `flag`
are dropped, those with `ignore` in their label are neither target nor background. Which picture a file is of is what
its `imagePath` says.
"""

import os
from functools import partial
from io import BytesIO
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple
from unicodedata import normalize

from PIL import Image

from cores import masks
from cores.data.formats.json_files import check, maybe, read_json, take, texts
from cores.data.formats.labelme_shapes import ABSENT, IGNORE, Region, decode_base64, painted, read_regions
from cores.data.formats.names import as_asked
from cores.data.formats.picture_headers import SUFFIXES, Header, read_header
from cores.data.record import Question, Record
from cores.data.sample import Form, Target
from cores.data.sources.base import FileSource, folder, is_file, locate, named_file, relative
from cores.errors import DataError
from cores.prompts.forms import form_of


class Pair(NamedTuple):
    """Pictures and annotations of one name; `json` is None, or `images` empty, when they are missing."""

    stem: str
    images: tuple[Path, ...]
    json: Path | None


def pairs_in(path: Path) -> list[Pair]:
    """Pictures and annotations of a folder that share a name, sorted by it; a second JSON file by its whole name.

    Raises DataError when the folder cannot be read.
    """
    images: dict[str, list[Path]] = {}
    jsons: dict[str, Path] = {}
    try:
        files = sorted(path.iterdir())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    for file in files:
        stem = normalize("NFC", file.stem)  # a Mac writes an accent as a letter of its own
        if file.name.startswith("."):  # what a Mac puts beside a file on a foreign disk, such as ._cup.jpg
            continue
        if file.suffix.lower() == ".json":
            jsons[file.name if stem in jsons else stem] = file
        elif file.suffix.lower() in SUFFIXES:
            images.setdefault(stem, []).append(file)
    stems = sorted({**images, **jsons})
    return [Pair(stem, tuple(images.get(stem, ())), jsons.get(stem)) for stem in stems]


def read_shapes(
    annotation: dict[str, Any], image: Path | Image.Image, header: Header, where: Path, published: bool = False
) -> Record:
    """The record of one picture, without split and meta. Args as `read_regions`.

    Raises DataError when shapes or texts cannot be used.
    """
    regions = read_regions(annotation, header, where, published)
    canvas = painted(regions, header.size)
    if published or annotation.get("text") is not None:
        there = any(not region.ignored for region in regions)
        questions = _by_text(annotation, (Target(masks.encode(canvas == 1)),) if there else (), where)
    else:
        questions = _by_label(regions, header.size)
        questions += _of_absent(annotation, {question.text for question in questions}, where)
    ignored = canvas == IGNORE
    ignore = masks.encode(ignored) if ignored.any() else None
    return Record(image, header.size, "", questions, ignore=ignore)


def _by_text(annotation: dict[str, Any], targets: tuple[Target, ...], where: Path) -> tuple[Question, ...]:
    """Every text asks for all target shapes together; without target shapes, for something that is not there."""
    asked = texts(take(annotation, "text", list, where), f"{where}: text")
    sentence = take(annotation, "is_sentence", bool, where)
    if not asked:
        raise DataError(f"{where}: text: is empty, expected at least one")
    form: Form = "sentence" if sentence else "phrase"
    return tuple(Question(text, lambda: targets, form, is_sentence=sentence) for text in asked)


def _by_label(regions: list[Region], size: tuple[int, int]) -> tuple[Question, ...]:
    """Every label asks for its own shapes together; those that differ in case alone are one, called as the first."""
    labels: dict[str, str] = {}
    for region in regions:
        if not region.ignored:
            labels.setdefault(region.name, region.label)
    return tuple(
        Question(name, partial(_of_label, name, regions, size), form_of(name), category=label)
        for name, label in labels.items()
    )


def _of_absent(annotation: dict[str, Any], there: set[str], where: Path) -> tuple[Question, ...]:
    """What ticked flags say is not there, each asked for by name; those that differ in case alone are one."""
    names: dict[str, str] = {}
    flags = annotation.get("flags")  # anything a user wants; other programs write lists
    for flag, ticked in flags.items() if isinstance(flags, dict) else ():
        if ticked is True and flag.strip().lower().startswith(ABSENT):
            label = flag.strip()[len(ABSENT) :]
            name = as_asked(label, f"{where}: flags: {flag!r}")
            if name in there:
                raise DataError(f"{where}: flags: {flag!r} is ticked, but shapes are labelled so: keep one of them")
            names.setdefault(name, label.strip())
    return tuple(Question(name, form=form_of(name), category=label) for name, label in names.items())


def _of_label(name: str, regions: list[Region], size: tuple[int, int]) -> tuple[Target, ...]:
    wanted = [region for region in regions if region.name == name or region.ignored]
    return (Target(masks.encode(painted(wanted, size) == 1)),)


class Labelme(FileSource):
    """A folder of one's own: one item an annotation file, and one a picture that none is of.

    Raises DataError when the folder is not there or holds neither.
    """

    def __init__(self, name: str, path: Path, root: Path) -> None:
        super().__init__(name, path.name, root)
        self.path = folder(path, name)
        self.pairs = _without_claimed(pairs_in(path))
        if not self.pairs:
            raise DataError(f"{name}: {path} holds no JSON file and no picture")
        self.found: dict[int, tuple[Path, ...]] = {}

    def __len__(self) -> int:
        return len(self.pairs)

    def read_record(self, i: int) -> Record:
        """The record of image i, whose picture is a file of its own or `imageData` in the JSON.

        Raises DataError when the JSON or the picture is missing or cannot be used.
        """
        pair = self.pairs[i]
        if pair.json is None:
            raise DataError(f"{pair.images[0]}: there is no {pair.stem}.json beside it")
        annotation = _read(pair.json)
        path = find_picture(annotation, pair)
        if path is not None:
            image: Path | Image.Image = path
            header = read_header(path)
        elif (data := maybe(annotation, "imageData", str, pair.json)) is not None:
            content = decode_base64(data, f"{pair.json}: imageData")
            header = read_header(Path(f"{pair.json}: imageData"), content)
            image = Image.open(BytesIO(content))
        else:
            raise DataError(f"{pair.json}: there is no {_called(annotation, pair)} beside it")
        record = read_shapes(annotation, image, header, pair.json)
        name = _called(annotation, pair) if path is None else path.name
        return record.of(self.split, {"source": self.name, "name": name})

    def files(self, i: int) -> tuple[Path, ...]:
        """The picture and its JSON; the JSON alone where the picture is in it."""
        if i not in self.found:
            self.found[i] = self._files(self.pairs[i])
        return self.found[i]

    def _files(self, pair: Pair) -> tuple[Path, ...]:
        if pair.json is None:
            return *pair.images, self.path / f"{pair.stem}.json"
        try:
            annotation = _read(pair.json)
            image = find_picture(annotation, pair)
            if image is None and annotation.get("imageData") is not None:
                return (pair.json,)
            missing = _called(annotation, pair)
        except DataError:  # said when the record is read
            image, missing = None, f"{pair.stem}.jpg"
        return image or (pair.images[0] if pair.images else self.path / missing), pair.json

    def place(self, i: int) -> tuple[str, str]:
        """The name of image i, which of a picture inside the JSON is the one given there; and its split."""
        first = self.files(i)[0]
        if first == self.pairs[i].json:
            first = self.path / _called(_read(first), self.pairs[i])
        return relative(first, self.root), self.split


def _read(path: Path) -> dict[str, Any]:
    return check(read_json(path), dict, str(path))


def _image_path(annotation: dict[str, Any], where: Path) -> str:
    return (maybe(annotation, "imagePath", str, where) or "").strip()


def _called(annotation: dict[str, Any], pair: Pair) -> str:
    """What a picture that is not there was called."""
    return PureWindowsPath(_image_path(annotation, pair.json or Path(pair.stem))).name or f"{pair.stem}.jpg"


def find_picture(annotation: dict[str, Any], pair: Pair) -> Path | None:
    """The picture that a file is of: what `imagePath` names, else the one beside it of the same name. None: none is.

    Raises DataError when that leaves two.
    """
    assert pair.json is not None
    home, named = pair.json.parent, _image_path(annotation, pair.json)
    for path in (named_file(home, named), home / PureWindowsPath(named).name) if named else ():
        if not is_file(path):
            continue
        other = home / f"{path.stem}.json"
        if pair.images and path.stem != pair.stem and is_file(other):
            raise DataError(
                f"{pair.json}: imagePath: names {path.name}, which {other.name} is of, "
                f"but {pair.images[0].name} is beside it: say which one it is"
            )
        return Path(os.path.normpath(path))
    if len(pair.images) > 1:
        names = " and ".join(path.name for path in pair.images)
        raise DataError(f"{pair.json}: {names} are both there: name one in imagePath, or remove the other")
    return pair.images[0] if pair.images else None


def _without_claimed(pairs: list[Pair]) -> list[Pair]:
    """The pairs without pictures that have no JSON of their name, but another file names as its own."""
    if all(pair.json is not None for pair in pairs):
        return pairs
    claimed = set()
    for pair in pairs:
        if pair.json is not None:
            try:
                claimed.add(find_picture(_read(pair.json), pair))
            except DataError:  # said when the record is read
                continue
    return [pair for pair in pairs if pair.json is not None or not claimed.issuperset(pair.images)]


def open_labelme(path: str, data_dir: Path | None, name: str) -> Labelme:
    """Open `labelme:PATH`, a folder of one's own. Raises DataError when it cannot be used."""
    return Labelme(name, *locate(path, data_dir))
