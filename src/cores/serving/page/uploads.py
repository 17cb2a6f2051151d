"""Pictures that a browser sent: Gradio keeps them in one folder, and nothing outside of it is ever read."""

from pathlib import Path

from gradio.utils import get_upload_folder


def sent(path: object) -> bytes | None:
    """The file's bytes; None when it is not, or no longer, among what was sent. `path`: as the browser says it."""
    if not isinstance(path, str) or "\0" in path:
        return None
    found, folder = Path(path).resolve(), Path(get_upload_folder()).resolve()
    return found.read_bytes() if found.is_relative_to(folder) and found.is_file() else None
