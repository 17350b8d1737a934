from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest

from benchmarks.serving import serving
from matura.core.errors import MaturaError
from matura.data import reading
from matura.data.reading import remote
from tests.data.reading.made_inputs import PROSE, read_all


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:  # the name that http.server calls
        name = self.path.partition("?")[0]
        if name == "/missing.txt":
            self.send_error(404)
            return
        self.send_response(200)
        body = PROSE.encode()
        if name == "/short.txt":
            self.send_header("Content-Length", str(len(body) + 10))
        self.end_headers()
        self.wfile.write(body * (100 if name == "/large.txt" else 1))

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    with serving(Handler) as port:
        yield f"http://127.0.0.1:{port}"


def test_a_file_of_the_web_is_fetched_once(address: str, tmp_path: Path) -> None:
    place = reading.fetch(f"{address}/a.txt?key=1", tmp_path, max_bytes=1000)
    assert place.read_text() == PROSE
    place.write_text("kept")
    assert reading.fetch(f"{address}/a.txt?key=1", tmp_path, max_bytes=1000).read_text() == "kept"
    ((document,), _) = read_all(place)
    assert document.source == "a.txt"


@pytest.mark.parametrize(
    ("name", "said"), [("missing", "404"), ("large", "at most"), ("short", "broke off|Incomplete")]
)
def test_what_does_not_arrive_leaves_nothing(address: str, tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(MaturaError, match=said) as caught:
        reading.fetch(f"{address}/{name}.txt?signature=secret", tmp_path, max_bytes=1000)
    assert "secret" not in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


class Hub:
    """A hub with one dataset, in memory."""

    files: dict[str, bytes]

    def dataset_info(self, repo: str, *, revision: str | None, files_metadata: bool) -> Any:
        if repo != "own/data":
            raise RuntimeError("404 no such dataset")
        names = (
            {"main/0.parquet": 9}
            if revision == "refs/convert/parquet"
            else {name: len(body) for name, body in self.files.items()}
        )
        return SimpleNamespace(
            sha=f"sha-{revision}",
            siblings=[SimpleNamespace(rfilename=name, size=size) for name, size in names.items()],
        )


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub()
    hub.files = {"README.md": b"card", "data/a.parquet": b"12345", "data/a.jsonl": b"{}", "x/b.parquet": b"1"}

    def download(repo: str, name: str, *, repo_type: str, revision: str, local_dir: str) -> str:
        assert repo_type == "dataset"
        path = Path(local_dir, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(hub.files.get(name, b"converted"))
        return str(path)

    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return hub


def fetched(path: str, downloads: Path, **options: Any) -> list[str]:
    place = reading.fetch(path, downloads, max_bytes=options.pop("max_bytes", 1000), **options)
    return sorted(str(file.relative_to(place)) for file in place.rglob("*") if not file.name.startswith("."))


def test_a_dataset_comes_as_parquet(hub: Hub, tmp_path: Path) -> None:
    assert fetched("hf:own/data", tmp_path) == ["data", "data/a.parquet", "x", "x/b.parquet"]
    assert fetched("hf:own/data:x", tmp_path) == ["x", "x/b.parquet"]
    assert fetched("hf:own/data@v1", tmp_path, include=("*.jsonl",)) == ["data", "data/a.jsonl"]
    hub.files = {"script.py": b""}
    assert fetched("hf:own/data", tmp_path) == ["main", "main/0.parquet"]


def test_datasets_that_cannot_be_had(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(MaturaError, match="at most 4"):
        fetched("hf:own/data", tmp_path, max_bytes=4)
    with pytest.raises(MaturaError, match="no such dataset"):
        fetched("hf:own/other", tmp_path)
    with pytest.raises(MaturaError, match="expected hf:organisation/dataset"):
        fetched("hf:data", tmp_path)
    with pytest.raises(MaturaError, match="nothing that can be read"):
        fetched("hf:own/data@v1", tmp_path, include=("*.tsv",))


def test_files_of_an_object_store_are_chosen_and_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = tmp_path / "bucket"
    (bucket / "sub").mkdir(parents=True)
    (bucket / "a.md").write_text(PROSE)
    (bucket / "sub" / "b.md").write_text(PROSE)
    (bucket / "c.png").write_text("no")
    # The same engine reads local folders by the same calls.
    monkeypatch.setattr(remote, "STORES", ("file://",))
    assert reading.is_remote(f"file://{bucket}/")
    assert fetched(f"file://{bucket}/", tmp_path / "there") == ["a.md", "sub", "sub/b.md"]
    with pytest.raises(MaturaError, match="at most"):
        fetched(f"file://{bucket}/**", tmp_path / "there", max_bytes=100)
    with pytest.raises(MaturaError, match=r"Cannot list|nothing"):
        fetched(f"file://{tmp_path}/none/*.md", tmp_path / "there")


def test_what_is_remote() -> None:
    assert all(map(reading.is_remote, ("s3://b/k", "https://x/y", "hf:a/b", "gs://b", "az://b")))
    assert not any(map(reading.is_remote, ("folder", "/a/b", "sqlite:///a.db", "wheel:a==1/b")))
