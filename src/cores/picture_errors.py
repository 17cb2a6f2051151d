"""Pictures opened, and what Pillow raises for those that are missing, damaged or no pictures, as one error."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from cores.errors import CoresError, DataError
from cores.regular_files import open_regular


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
    except CoresError:
        raise
    except FileNotFoundError:
        raise DataError(f"{name}: there is no such file") from None
    except IsADirectoryError:
        raise DataError(f"{name}: is a folder, a picture was expected") from None
    except UnidentifiedImageError:
        raise DataError(f"{name}: is no picture that can be read; JPEG, PNG, WebP, TIFF, BMP and GIF can") from None
    except Image.DecompressionBombError as error:
        raise DataError(f"{name}: too large to be a picture: {error}") from None
    except Exception as error:  # its fifty decoders raise whatever Python has
        if isinstance(error, OSError) and error.errno:
            raise DataError(f"{name}: cannot be read: {error.strerror}") from None
        what = str(error) or type(error).__name__
        raise DataError(f"{name}: is damaged and cannot be read ({what}): replace it") from None


@contextmanager
def opened_picture(path: str | Path, content: bytes | None = None) -> Iterator[Image.Image]:
    """A picture's file, or its content under that name, opened and not yet decoded.

    Raises DataError as `picture_errors`, and for what is no regular file.
    """
    with picture_errors(path), open_regular(path) if content is None else BytesIO(content) as file:
        with Image.open(file) as image:
            yield image
