"""Reports of stages have captions for pictures, but where a test asks for `drawn`: one for each kind of report does."""

from collections.abc import Iterator

import pytest

from tests.stages.pictures import DRAWN, captioned, pictures


@pytest.fixture(scope="module", autouse=True)
def captions() -> Iterator[None]:
    with pictures(captioned):
        yield


@pytest.fixture
def drawn() -> Iterator[None]:
    with pictures(DRAWN):
        yield
