"""A training that dies right after one of its checkpoints."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from matura.train import resume


@contextmanager
def killed_after(stop: int) -> Iterator[None]:
    """What runs inside is interrupted once the checkpoint of step `stop` is saved; a failure when it is not."""
    save = resume.save

    def dying(folder: Path, step: int, *rest: Any) -> None:
        save(folder, step, *rest)
        if step == stop:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resume, "save", dying)
        with pytest.raises(KeyboardInterrupt):
            yield


@contextmanager
def killed_before_the_first_update(training: ModuleType) -> Iterator[None]:
    """What runs inside is interrupted when the module `training` is to begin with its first update."""

    def dying(*given: Any, **more: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "train", dying)
        with pytest.raises(KeyboardInterrupt):
            yield
