"""What becomes of every tensor of a checkpoint, decided and checked before one of them is read.

Legend: key = a tensor's name in the files of the source, target = its name in what is written.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cores.checkpoints.published.keys import Table, ignored, rename, same_as
from cores.checkpoints.tensors.lazy import Entry, Tensors, wrong_types
from cores.checkpoints.tensors.writing import Item, write_shards
from cores.modeling.strict import fault, refuse

FILE = "keys.tsv"
COLUMNS = ("source", "key", "action", "target", "dtype", "shape", "note")
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """Tensors and the table that renames them. `leave`: why a key is left out, beside the table's own reasons."""

    name: str
    tensors: Tensors
    table: Table
    leave: Callable[[str], str | None] = lambda key: None


@dataclass(frozen=True, slots=True)
class Line:
    """One tensor's fate. `action`: mapped, transformed (`note` says how), ignored or computed (why).

    `rule`: the line of the table that renamed it, as one text.
    """

    source: str
    keys: tuple[str, ...]
    action: str
    target: str
    dtype: str
    shape: Shape
    note: str
    rule: str = ""


@dataclass(frozen=True)
class Plan:
    """`places`: for each target the source and the name there, in the order of reading; `lines`: the key table."""

    sources: Sequence[Source]
    places: Mapping[str, tuple[int, str]]
    lines: Sequence[Line]

    def entry(self, target: str) -> Entry:
        """What is known of a target's tensor before it is read."""
        number, name = self.places[target]
        return self.sources[number].tensors[name]

    def tensor(self, target: str, broken: list[str]) -> Tensor:
        """The tensor, in its entry's shape; a line is added to `broken` where it can be no weight."""
        number, name = self.places[target]
        value = self.sources[number].tensors.tensor(name)
        if wrong := fault(value):
            broken.append(f"{' + '.join(self.entry(target).made_of)}: {wrong}")
        return value

    def write(
        self, folder: Path, dtype: torch.dtype | None = None, seen: Callable[[str], None] = lambda target: None
    ) -> None:
        """Write the targets as safetensors and the table as keys.tsv. `dtype`: None keeps each tensor's own.

        `seen` is told of every target that is read. Raises CheckpointError that names every tensor of numbers that are
        not finite, and for numbers that `dtype` cannot hold.
        """

        broken: list[str] = []

        def tensor(target: str) -> Tensor:
            seen(target)
            return self.tensor(target, broken)

        items = []
        for target in self.places:
            shape, own, *_ = self.entry(target)
            items.append(Item(target, shape, dtype if dtype is not None and own.is_floating_point else own))
        write_shards(folder, items, tensor)
        refuse(self.sources[0].name, unusable=broken)
        (folder / FILE).write_text(table_text(self.lines), encoding="utf-8")


def make_plan(
    where: object, sources: Sequence[Source], expected: Mapping[str, Shape], same: Mapping[str, str] | None = None
) -> Plan:
    """Where every expected tensor comes from, and what becomes of every tensor that is there.

    Args: `expected`: shapes by target; `same`: targets that are another target's tensor under a second name, which
    are not written. Raises CheckpointError that lists all that is missing, unexpected, or of another shape.
    """
    same = same or {}
    places: dict[str, tuple[int, str]] = {}
    lines: list[Line] = []
    unexpected: list[str] = []
    for number, source in enumerate(sources):
        for name, entry in source.tensors.items():
            reason = ignored(name) or source.leave(name)
            target = None if reason else rename(name, source.table)
            if reason:
                lines.append(_line(source, name, entry, "ignored", "", reason))
            elif target is None or target not in expected:
                unexpected.append(f"{name} ({source.name})")
            elif target in places:
                unexpected.append(f"{name} ({source.name}), a second {target}")
            else:
                places[target] = (number, name)
                lines.append(_line(source, name, entry, "transformed" if entry.how else "mapped", target, entry.how))
    missing = [f"{name}{_called(name, sources)}" for name in expected if name not in places and name not in same]
    mismatched = []
    for target, (number, name) in places.items():
        found = sources[number].tensors[name].shape
        if found != expected[target]:
            mismatched.append((target, found, expected[target]))
    read = {name: sources[number].tensors[name] for number, name in places.values()}
    refuse(where, missing, unexpected, mismatched, wrong_types(read))
    lines += [Line("", (), "computed", name, "", (), same_as(other)) for name, other in same.items()]
    return Plan(sources, places, lines)


def table_text(lines: Sequence[Line]) -> str:
    """Every key of the sources and every target, one a line, tab-separated."""
    rows = ["\t".join(COLUMNS)]
    for line in lines:
        shape = "x".join(map(str, line.shape))
        rows.append(
            "\t".join((line.source, " + ".join(line.keys), line.action, line.target, line.dtype, shape, line.note))
        )
    return "\n".join(rows) + "\n"


def summary(lines: Sequence[Line]) -> str:
    """The table with one line for all tensors that were renamed alike, and how many they are."""
    groups: dict[tuple[str, str, str], int] = {}
    for line in lines:
        group = (line.action, line.rule or f"{_starred(' + '.join(line.keys) or line.target)}", line.note)
        groups[group] = groups.get(group, 0) + 1
    rows = [
        f"{count:5} {action:11} {rule}{f' ({note})' if note else ''}" for (action, rule, note), count in groups.items()
    ]
    counts = {action: sum(line.action == action for line in lines) for action in ("mapped", "transformed", "ignored")}
    total = ", ".join(f"{count} {action}" for action, count in counts.items())
    return "\n".join(rows) + f"\n{sum(len(line.keys) for line in lines)} keys: {total}; none left over\n"


def _line(source: Source, name: str, entry: Entry, action: str, target: str, note: str) -> Line:
    dtype = str(entry.dtype).removeprefix("torch.")
    rules = (f"{theirs} -> {ours}" for theirs, ours in source.table if rename(name, ((theirs, ours),)) == target)
    rule = next(rules, "") if target else ""
    return Line(source.name, entry.made_of, action, target, dtype, entry.shape, note, rule)


def _starred(name: str) -> str:
    return re.sub(r"(?<=\.)\d+(?=\.)", "*", name)


def _called(target: str, sources: Sequence[Source]) -> str:
    """What a missing tensor would be called in the source."""
    names = [name for source in sources if (name := rename(target, source.table, back=True))]
    return f" ({names[0]})" if names else ""
