import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors

from matura.core.aliases import HubReference
from matura.core.errors import ArtifactError, ModelNotFound
from matura.core.hub import choose, fetch_hub
from matura.core.references import fetch
from matura.core.workspace import Workspace


class Hub:
    """Stands for the hub and its client: one repository, online or not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, int] = {}
        self.error: Exception | None = None
        self.cached = True
        self.asked: dict[str, Any] = {}

    def model_info(self, repo: str, revision: str | None, files_metadata: bool) -> Any:
        if self.error:
            raise self.error
        siblings = [SimpleNamespace(rfilename=name, size=size) for name, size in self.files.items()]
        return SimpleNamespace(siblings=siblings, sha="c0ffee")

    def snapshot_download(self, repo: str, **options: Any) -> str:
        self.asked = options
        if not self.cached:
            raise errors.LocalEntryNotFoundError("nothing in the cache")
        for name in self.files:
            if name in options["allow_patterns"]:
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                (self.folder / name).write_bytes(b"x")
        return str(self.folder)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub(tmp_path / "cache")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    return hub


def no_check(size: int, what: str) -> None:
    pass


def refused(kind: type[Exception]) -> Exception:
    """One of the client's errors, without the response it wants."""
    return kind.__new__(kind)


GPT2 = {
    "config.json": 10,
    "model.safetensors": 500,
    "pytorch_model.bin": 500,
    "onnx/model.json": 3,
    "README.md": 1,
}


def test_only_the_model_is_fetched_at_the_commit_that_was_listed(hub: Hub) -> None:
    hub.files = GPT2
    sizes: list[int] = []
    folder = fetch_hub(HubReference("org/name"), lambda size, what: sizes.append(size))
    assert folder == hub.folder
    assert hub.asked["allow_patterns"] == ["config.json", "model.safetensors"]
    assert hub.asked["revision"] == "c0ffee"
    assert sizes == [510]


def test_one_gguf_is_returned_as_a_file(hub: Hub, tmp_path: Path) -> None:
    hub.files = {"config.json": 1, "m.Q4.gguf": 5}
    assert fetch("hf:org/name", Workspace(tmp_path / "work")) == hub.folder / "m.Q4.gguf"
    hub.files["sub/m.Q8.gguf"] = 5
    reference = HubReference("org/name", file="sub/m.Q8.gguf")
    assert fetch_hub(reference, no_check) == hub.folder / "sub" / "m.Q8.gguf"
    with pytest.raises(ModelNotFound, match=r"(?s)2 GGUF models; name one:.*hf:org/name/sub/m\.Q8\.gguf"):
        fetch_hub(HubReference("org/name", revision="main"), no_check)


def test_which_files_are_chosen() -> None:
    names = ["a.json", "model-1.safetensors", "consolidated.safetensors", "m.gguf", "original/x.json"]
    assert choose(names, None, "hf:o/n") == ["a.json", "model-1.safetensors"]
    assert choose(names, "m.gguf", "hf:o/n") == ["a.json", "m.gguf"]
    with pytest.raises(ModelNotFound, match=r"no GGUF file n\.gguf; did you mean m\.gguf\?"):
        choose(names, "n.gguf", "hf:o/n")
    with pytest.raises(ModelNotFound, match="only as pickle"):
        choose(["config.json", "pytorch_model.bin"], None, "hf:o/n")
    with pytest.raises(ModelNotFound, match="no weights"):
        choose(["config.json"], None, "hf:o/n")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (errors.GatedRepoError, "gated: accept its terms"),
        (errors.RepositoryNotFoundError, "The hub has no model org/name"),
        (errors.RevisionNotFoundError, "no revision 'v9'"),
    ],
)
def test_what_the_hub_refuses_is_explained(hub: Hub, kind: type[Exception], message: str) -> None:
    hub.error = refused(kind)
    with pytest.raises(ModelNotFound, match=message):
        fetch_hub(HubReference("org/name", "v9"), no_check)


def test_without_a_network_the_cache_is_used(hub: Hub) -> None:
    hub.error = ConnectionError("no route")
    hub.folder.mkdir()
    (hub.folder / "model.safetensors").write_bytes(b"x")
    assert fetch_hub(HubReference("org/name", "v1"), no_check) == hub.folder
    assert hub.asked["local_files_only"] is True
    assert hub.asked["revision"] == "v1"
    hub.cached = False
    with pytest.raises(
        ModelNotFound, match="the hub cannot be reached, and the local cache does not have it"
    ):
        fetch_hub(HubReference("org/name"), no_check)


def test_a_download_that_breaks_off_and_a_full_disk(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.files = GPT2

    def fail(error: Exception) -> None:
        def download(repo: str, **options: Any) -> str:
            raise error

        monkeypatch.setattr(huggingface_hub, "snapshot_download", download)

    fail(ConnectionResetError(errno.ECONNRESET, "reset by peer"))
    with pytest.raises(ModelNotFound, match=r"Cannot fetch hf:org/name: .*reset by peer"):
        fetch("hf:org/name", Workspace(tmp_path / "work"))
    fail(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    with pytest.raises(ArtifactError, match="disk is full"):
        fetch("hf:org/name", Workspace(tmp_path / "work"))
