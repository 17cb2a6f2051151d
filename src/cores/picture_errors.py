"""What Pillow raises for pictures that are missing, damaged or no pictures, as one error with the picture's name."""

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from cores.errors import DataError


@contextmanager
def picture_errors(name: str | Path) -> Iterator[None]:
    """Inside, a picture is opened or decoded; a DataError of one's own gets no other words.

    Pillow's warning of large pictures is silent: a telephone's camera makes more pixels than that. Twice as many are
    an error. Raises DataError, beginning with `name`, for whatever Pillow raises.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            yield
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{name}: there is no such file") from None
    except IsADirectoryError:
        raise DataError(f"{name}: is a folder, a picture was expected") from None
    except UnidentifiedImageError:
        raise DataError(f"{name}: is no picture that can be read; JPEG, PNG, WebP, TIFF, BMP and GIF can") from None
    except Image.DecompressionBombError as error:
        raise DataError(f"{name}: too large to be a picture: {error}") from None
    except (OSError, ValueError, SyntaxError, EOFError, struct.error) as error:
        raise DataError(f"{name}: is damaged and cannot be read ({error}): replace it") from None
