"""For every test: the same whatever else is installed: no GPU but under `-m cuda`, no boards, indexes of its own."""

import os

import pytest


def pytest_configure(config):
    if "cuda" not in config.getoption("markexpr"):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # numbers are compared with those of the CPU


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    from cores.trainer_section import DEFAULTS

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CORES_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setitem(DEFAULTS, "report_to", "none")
        yield
