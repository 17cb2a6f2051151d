"""Masks as the losses want them: whole, or the share of each cell that they cover, straight from their run lengths.

Legend: h, w = the picture's size; h', w' = cells. Cells are those of PyTorch's area interpolation: cell i goes from
pixel floor(i h / h') to ceil((i + 1) h / h'), so that neighbours may share a row or column of pixels.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cores.errors import DataError
from cores.geometry import Size
from cores.masks import RLE, decode, runs

Ints = NDArray[np.int64]


def truth_of(rle: RLE, cells: Size | None) -> Tensor:
    """A mask (h, w), bool; with `cells` (h', w') the share of each that is inside, (h', w'), fp32.

    Raises DataError when the run lengths do not fill their size.
    """
    return torch.from_numpy(decode(rle) if cells is None else shares(rle, cells))


def nothing(size: Size, cells: Size | None) -> Tensor:
    """`truth_of` a mask of a picture (h, w) that has nothing inside."""
    return torch.zeros(size, dtype=torch.bool) if cells is None else torch.zeros(cells)


def shares(rle: RLE, cells: Size) -> NDArray[np.float32]:
    """The share (h', w') of each cell that is inside a mask. No pixel is made. Raises DataError as `decode`.

    How many pixels are inside above row r and left of column c is a sum over the ends of runs: a run that begins at
    (row, column) adds r - row, if both are before, and one that ends takes the same away. These sums are taken at the
    borders of cells alone.
    """
    (height, width), lengths = rle["size"], runs(rle["counts"])
    if height < 1 or width < 1 or lengths is None or int(lengths.sum()) != height * width:
        raise DataError(f"run lengths do not fill their size, {height} x {width} (h x w)")
    rows, columns, signs = _ends(lengths, height)
    (row_borders, above, below), (column_borders, left, right) = _borders(height, cells[0]), _borders(width, cells[1])
    # each end counts from the first border behind it; behind the last there is nothing to count
    shape = (len(column_borders) + 1, len(row_borders) + 1)
    place = column_borders.searchsorted(columns, "right") * shape[1] + row_borders.searchsorted(rows, "right")
    count, offset = (
        np.bincount(place, weight, shape[0] * shape[1]).reshape(shape)[:-1, :-1].cumsum(1)
        for weight in (signs, signs * rows)
    )
    upper = row_borders * count - offset  # (column borders, row borders): pixels above, of ends between two columns
    inside = (upper[:, below] - upper[:, above]).cumsum(0)  # (column borders, h'): pixels to the left, a row of cells
    covered = (inside[right] - inside[left]).T
    pixels = (row_borders[below] - row_borders[above])[:, None] * (column_borders[right] - column_borders[left])
    found: NDArray[np.float32] = (covered / pixels).astype(np.float32)
    return found


def _borders(length: int, cells: int) -> tuple[Ints, Ints, Ints]:
    """All borders of the cells along a side, in pixels, and by number those at which each cell begins and ends."""
    number = np.arange(cells + 1) * length
    begins, ends = number[:-1] // cells, -(-number[1:] // cells)
    borders = np.unique([begins, ends])
    return borders, borders.searchsorted(begins), borders.searchsorted(ends)


def _ends(lengths: Ints, height: int) -> tuple[Ints, Ints, Ints]:
    """Rows and columns at which runs inside begin (sign 1) and end (sign -1), where runs go down one column only.

    Run lengths go on from the last row of a column to the first of the next: there a run begins anew. That it ended in
    the last row takes nothing away from any row.
    """
    edges = lengths.cumsum()
    begins, ends = edges[0:-1:2], edges[1::2]
    anew = ends // height - begins // height  # how often
    first = np.repeat(begins // height + 1, anew)
    count = np.arange(anew.sum()) - np.repeat(anew.cumsum() - anew, anew)
    columns = np.concatenate([begins // height, ends // height, first + count])
    rows = np.concatenate([begins % height, ends % height, np.zeros_like(first)])
    signs = np.concatenate([np.ones_like(begins), -np.ones_like(ends), np.ones_like(first)])
    return rows, columns, signs
