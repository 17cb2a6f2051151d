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
    # without O_NONBLOCK, opening a pipe waits for somebody who writes
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
        if kind == stat.S_IFDIR:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if kind != stat.S_IFREG:
            raise DataError(f"{path}: is {KINDS.get(kind, 'something else')}, a regular file was expected")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise
