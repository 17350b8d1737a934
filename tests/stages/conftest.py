"""Reports of stages have captions for pictures, but where a test asks for `drawn`: one for each kind of report does."""

from collections.abc import Iterator

import pytest

from tests.stages.pictures import DRAWN, pictures


@pytest.fixture(scope="module", autouse=True)
def no_pictures(captions: None) -> None:
    """See tests/conftest.py."""


@pytest.fixture
def drawn() -> Iterator[None]:
    with pictures(DRAWN):
        yield
