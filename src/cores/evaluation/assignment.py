"""Which of an answer's masks is meant by which target: the pairs whose IoUs sum highest, found exactly."""

from collections.abc import Sequence


def best_assignment(worth: Sequence[Sequence[float]]) -> list[int | None]:
    """For each row the column that it goes with, so that the sum is the highest; None for rows that are left over.

    Each column goes with one row at most. `worth`: rows of one length, no number negative. The Hungarian method with
    potentials: a row at a time is added along the cheapest augmenting path.
    """
    rows, columns = len(worth), len(worth[0]) if worth else 0
    width = rows + columns  # a column for every row to be left over in, worse than all others
    cost = [[-value for value in row] + [1.0] * rows for row in worth]
    of_row, of_column = [0.0] * rows, [0.0] * (width + 1)
    row_at: list[int | None] = [None] * (width + 1)  # the last column is where a path begins
    for row in range(rows):
        row_at[width], at = row, width
        least, before, seen = [float("inf")] * width, [width] * width, [False] * (width + 1)
        while (here := row_at[at]) is not None:
            seen[at] = True
            for column in range(width):
                if not seen[column]:
                    reduced = cost[here][column] - of_row[here] - of_column[column]
                    if reduced < least[column]:
                        least[column], before[column] = reduced, at
            following = min((c for c in range(width) if not seen[c]), key=least.__getitem__)
            step = least[following]
            for column in range(width + 1):
                if seen[column]:
                    owner = row_at[column]
                    assert owner is not None
                    of_row[owner] += step
                    of_column[column] -= step
                elif column < width:
                    least[column] -= step
            at = following
        while at != width:
            row_at[at], at = row_at[before[at]], before[at]
    found: list[int | None] = [None] * rows
    for column in range(columns):
        if (owner := row_at[column]) is not None:
            found[owner] = column
    return found
