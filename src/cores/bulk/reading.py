"""The rows of a bulk run, read back picture by picture."""

import json
from collections.abc import Iterator
from pathlib import Path

from cores.bulk.plan import HOME, PLAN, part_file, planned
from cores.bulk.questions import Picture
from cores.bulk.rows import Row, read_rows
from cores.errors import UserError


def read_run(out: Path) -> Iterator[tuple[Picture, list[Row]]]:
    """Each picture of a finished run with its rows, in the order of its queries.

    Raises UserError when the folder holds no run, or one that is not finished.
    """
    settings, home = planned(out), out / HOME
    with (home / PLAN).open("rb") as plan:
        rows: list[Row] = []
        for number, line in enumerate(plan):
            if number % settings.part == 0:
                file = part_file(home, number // settings.part, settings)
                if not file.exists():
                    raise UserError(f"{out}: the run is not finished, {file.name} is missing: start it again")
                rows = read_rows(file)
            picture = Picture(**json.loads(line))
            own, rows = rows[: len(picture.rows)], rows[len(picture.rows) :]
            yield picture, own
