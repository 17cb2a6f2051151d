"""What a source is: a list of images with everything that can be asked about each. No torch, nothing random."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import Protocol, Self

from cores.data.bad import Counted
from cores.data.record import Record
from cores.data.sample import Sample
from cores.errors import DataError
from cores.whole import FULL


class Source(Protocol):
    """What everybody else sees: samples by number.

    `name` as it was asked for, `split` as it is called there. Item i is always the same; it raises DataError when its
    files cannot be used.
    """

    @property
    def name(self) -> str: ...
    @property
    def split(self) -> str: ...
    def __len__(self) -> int: ...
    def __getitem__(self, i: int, /) -> Sample: ...


class FileSource(ABC):
    """A source read from files.

    `name` as it was asked for, `split` as it is called there; `root`: the folder that images are named below;
    `note`: what a report must say about it, if anything.
    """

    def __init__(self, name: str, split: str, root: Path, note: str = "") -> None:
        self.name, self.split, self.root, self.note = name, split, root, note
        self.lost = Counted()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read_record(self, i: int) -> Record:
        """The record of image i, 0 <= i < len. Raises DataError when its files cannot be used."""

    @abstractmethod
    def files(self, i: int) -> tuple[Path, ...]:
        """The files of image i that have to be there: the picture first, then what belongs to it alone."""

    def place(self, i: int) -> tuple[str, str]:
        """The name of image i below the root, and its split."""
        return relative(self.files(i)[0], self.root), self.split

    def record(self, i: int) -> Record:
        """The record of image i. Raises IndexError beyond the end, DataError when its files cannot be used."""
        if not 0 <= i < len(self):
            raise IndexError(f"{self.name} has {len(self)} images, there is no number {i}")
        with file_errors(self.name):
            record = self.read_record(i)
        for question in record.questions:
            if question.lost is not None:
                self.lost.warn(f"{self.name}: not trained on and not scored: {question.lost}")
        return record

    def __getitem__(self, i: int) -> Sample:
        return self.record(i).sample()

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def look(self, i: int) -> Record | None:
        """Check image i without decoding pixels; its record, where reading it needs no more.

        Raises DataError when its files cannot be used.
        """
        return self.read_record(i)

    def for_evaluation(self) -> Self:
        """The source as the published programs validate on it; itself, where they ask everything."""
        return self

    def problems(self) -> Iterator[tuple[Path, str]]:
        """Faults that belong to no image: annotations whose image is not there, files that nothing reads."""
        return iter(())


@contextmanager
def file_errors(name: str) -> Iterator[None]:
    """Inside, files of a source are read.

    Raises DataError for what the system says about one of them, so that it can be skipped and told like any other.
    A full disk stays what it is.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise
        raise DataError(f"{error.filename or name}: cannot be read: {error.strerror or error}") from None


def folder(path: Path, name: str) -> Path:
    """A folder that has to be there. Raises DataError that says what is there instead."""
    if path.is_dir():
        return path
    parent = path.parent
    while not parent.is_dir():
        parent = parent.parent
    inside = ", ".join(sorted(entry.name for entry in parent.iterdir())[:8]) or "nothing"
    raise DataError(f"{name}: there is no folder {path}; {parent} holds {inside}")


def needs(data_dir: Path | None, name: str) -> Path:
    """The data directory. Raises DataError when none was given or it is not there."""
    if data_dir is None:
        raise DataError(f"{name}: lies in a data directory, and none was given: say --data DIR")
    return folder(Path(data_dir), name)


def relative(image: Path, root: Path) -> str:
    """The name of an image below a folder, with / on every system; its whole path when it lies elsewhere."""
    return (image.relative_to(root) if image.is_relative_to(root) else image.absolute()).as_posix()


def locate(path: str, data_dir: Path | None) -> tuple[Path, Path]:
    """A path of one's own data, and the folder that its images are named below.

    It is looked for below the data directory, then as it stands.
    """
    inside = None if data_dir is None else Path(data_dir) / path
    found = inside if inside is not None and inside.exists() else Path(path)
    if data_dir is not None and found.is_relative_to(data_dir):
        return found, Path(data_dir)
    return found, found if found.is_dir() else found.parent


def is_file(path: Path) -> bool:
    """Is there a regular file? No name is an error here, not even one that no file system takes."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def named_file(folder: Path, name: str) -> Path:
    """The file that an annotation names, below a folder; also where it was named on Windows.

    A name with backslashes is read as such a path when there is no file of just that name; of a path with a drive,
    which is another machine's, the last part counts.
    """
    path = folder / name
    if "\\" not in name or is_file(path):
        return path
    other = PureWindowsPath(name)
    return folder / (other.name if other.drive or other.root else other.as_posix())
