"""`cores label --from ROWS --out FOLDER`: the rows of a bulk run as labelme files."""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cores.cli.inputs import names_of
from cores.cli.label import check_tolerance, label_options, write_beside
from cores.cli.options import taken_folder
from cores.cli.terminal import printable

if TYPE_CHECKING:
    from cores.bulk.rows import Row
    from cores.data.formats.labelme_files import Labelled


def main(argv: list[str]) -> int:
    """Run `cores label --from`. Gives the exit code. Raises UserError for rows that cannot be used."""
    parser = argparse.ArgumentParser(
        prog="cores label", description="Write what `cores predict --engine ray` found as labelme files."
    )
    parser.add_argument("--from", dest="rows", type=Path, required=True, metavar="ROWS", help="its folder")
    label_options(parser)
    parser.add_argument("--overwrite", action="store_true", help="write into a folder that is already there")
    args = parser.parse_args(argv)
    check_tolerance(args.tolerance)
    from cores.bulk.pictures import content_of, suffix_of
    from cores.bulk.reading import read_run
    from cores.data.formats.labelme_files import labelme_file
    from cores.inference.exports import check_queries

    pictures = [picture for picture, _ in read_run(args.rows)]  # all is looked at before anything is written
    for picture in pictures:
        check_queries(picture.queries)
    names, left_out = names_of([picture.path for picture in pictures]), 0
    with taken_folder(args.out, args.overwrite) as out:
        for name, (picture, rows) in zip(names, read_run(args.rows), strict=True):
            for row in rows:
                if row["error"]:
                    sys.stderr.write(printable(f"left out: {row['image']}: {row['query']!r}: {row['error']}") + "\n")
            good = [row for row in rows if not row["error"]]
            left_out += not good
            if good:
                height, width = good[0]["size"]
                found = [label for row in good for label in _labelled(row)]
                absent = {row["query"].strip(): False for row in good if row["status"] == "absent"}
                make = partial(labelme_file, found, size=(height, width), tolerance=args.tolerance, absent=absent)
                inside = None if picture.place is None else content_of(picture)
                path = picture.path if inside is None else Path(f"{name}.{suffix_of(inside)}")
                write_beside(path, name, make, out, inside)
    sys.stdout.write(printable(f"{len(names) - left_out} pictures in {args.out}") + "\n")
    return 0


def _labelled(row: "Row") -> "list[Labelled]":
    from cores.data.formats.labelme_files import Labelled
    from cores.masks import area, decode

    return [
        Labelled(row["query"].strip(), decode(mask), f"score {score:.3f}: {row['text']}")
        for mask, score in zip(row["masks"], row["scores"], strict=True)
        if area(mask)
    ]
