"""For every test: indexes of data files go to a folder of the run's own."""

import pytest


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CORES_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
