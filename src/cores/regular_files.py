"""Only regular files are opened: a pipe in a file's place would be waited for, a device read without end."""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

from cores.errors import DataError

KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


def open_regular(path: str | Path) -> BufferedReader:
    """A file, opened to read its bytes; links are followed.

    Raises OSError as `open` does, and DataError for what is no regular file.
    """
    try:
        # without O_NONBLOCK, opening a pipe waits for somebody who writes
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError as error:  # a name with a zero byte
        raise OSError(errno.EINVAL, str(error), str(path)) from None
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket cannot even be opened
            _check_kind(path, os.stat(path))
        raise
    try:
        _check_kind(path, os.fstat(descriptor))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _check_kind(path: str | Path, state: os.stat_result) -> None:
    """Raises IsADirectoryError for a folder, DataError for what else is no regular file."""
    kind = stat.S_IFMT(state.st_mode)
    if kind == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if kind != stat.S_IFREG:
        raise DataError(f"{path}: is {KINDS.get(kind, 'something else')}, a regular file was expected")
