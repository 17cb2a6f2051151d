"""The page at `/`: drop a picture, ask, look at the answer level by level. It fetches nothing from elsewhere."""

from typing import TYPE_CHECKING

from cores.errors import UserError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from cores.serving.engine import Engine
    from cores.serving.settings import Settings


def mount(app: "FastAPI", engine: "Engine", settings: "Settings") -> None:
    """Mount the page at `/`; what else the app answers has to be in it before.

    Raises UserError where gradio is not installed.
    """
    try:
        from cores.serving.page.blocks import mount_blocks
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise UserError("the page needs gradio: pip install 'cores[serve]', or serve with --no-page") from None
    mount_blocks(app, engine, settings)
