import subprocess
import sys

import pytest

from matura.core import provenance


def test_the_environment_is_told_without_importing_torch() -> None:
    code = (
        "import sys; from matura.core import artifact, provenance; e = provenance.environment();"
        "assert e['torch'] and e['threads'] >= 1 and e['cpu'] and 'numpy' in e['packages'], e;"
        "heavy = {'torch', 'numpy', 'pyarrow', 'rich', 'huggingface_hub', 'pydantic'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_the_thread_count_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert provenance.threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert provenance.threads() >= 1


def test_git_may_be_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_git(*_: object, **__: object) -> None:
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", no_git)
    version = provenance.code_version.__wrapped__()
    assert version["version"]
    assert version["commit"] is None
    assert version["dirty"] is None


def test_a_repository_that_does_not_track_the_package_is_not_its_commit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = {"ls-files": None, "rev-parse": "0" * 40, "status": ""}
    monkeypatch.setattr(provenance, "_git", lambda directory, command, *rest: answers[command])
    assert provenance.code_version.__wrapped__()["commit"] is None
    answers["ls-files"] = "__init__.py"
    assert provenance.code_version.__wrapped__() | {"version": ""} == {
        "version": "",
        "commit": "0" * 40,
        "dirty": False,
    }
