"""Curation of far and damaged sources as a whole: what the workspace holds, and what it must not."""

import base64
import json
import os
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from benchmarks.serving import serving
from matura.cli import app
from matura.core.errors import MaturaError

SECRET = "s3cr3t-pa55word"
LOGIN = base64.b64encode(f"me:{SECRET}".encode()).decode()
PROSE = "The quick brown fox number {} jumps over the lazy dog while the sun sets behind the hills. "


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:  # the name that http.server calls
        good = self.headers["Authorization"] == f"Basic {LOGIN}"
        self.send_response(200 if good else 401)
        self.end_headers()
        if good:
            self.wfile.write("".join(json.dumps({"text": PROSE.format(i)}) + "\n" for i in range(9)).encode())

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    with serving(Handler) as port:
        yield f"http://me:PASSWORD@127.0.0.1:{port}/a.jsonl"


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MATURA_WORKSPACE", str(tmp_path / "workspace"))
    return tmp_path / "workspace"


def matura(*arguments: str) -> str:
    """What a command prints, or the message of its error."""
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, MaturaError | SystemExit):
        raise result.exception
    return f"{result.output}{result.exception or ''}"


def curate(*settings: str) -> str:
    return matura("curate", "min_characters=20", *settings)


def rows(workspace: Path, name: str) -> list[dict[str, Any]]:
    return [row for path in workspace.rglob(name) for row in pyarrow.parquet.read_table(path).to_pylist()]


def leaks(folder: Path) -> list[str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [
        str(path) for path in files if any(form.encode() in path.read_bytes() for form in (SECRET, LOGIN))
    ]


def test_a_password_of_the_environment_is_used_and_nowhere_kept(
    address: str, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEB_PASSWORD", SECRET)
    setting = f"path={address.replace('PASSWORD', '${WEB_PASSWORD}')}"
    said = (
        curate(setting)
        + curate(setting, "--plan")
        + curate(setting, "seed=1")
        + matura("show", str(workspace))
    )
    assert len(rows(workspace, "train.parquet")) >= 6
    assert SECRET not in said
    assert LOGIN not in said
    assert not leaks(workspace)
    records = [json.loads(path.read_text())["config"]["path"] for path in workspace.rglob("artifact.json")]
    assert records
    assert all("${WEB_PASSWORD}" in path for path in records)
    (workspace / "found").write_text(f"x{SECRET}x")  # the search itself works
    assert leaks(workspace) == [str(workspace / "found")]


def test_a_wrong_or_missing_password_is_told_without_it(
    address: str, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = f"path={address.replace('PASSWORD', '${WEB_PASSWORD}')}"
    assert "WEB_PASSWORD is not set" in curate(setting)
    monkeypatch.setenv("WEB_PASSWORD", f"no-{SECRET}")
    said = curate(setting)
    assert "401" in said
    assert SECRET not in said


@pytest.mark.parametrize("form", ["path={}", "sources.far.path={}"])
def test_a_password_in_clear_is_refused_before_anything_is_stored(
    address: str, workspace: Path, form: str
) -> None:
    said = curate(form.format(address.replace("PASSWORD", SECRET)))
    assert "password or token in clear" in said
    assert SECRET not in said
    assert not workspace.exists() or not leaks(workspace)


def test_damaged_places_are_named_and_cost_themselves(workspace: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    for i in range(6):
        (folder / f"{i}.txt").write_text(PROSE.format(i))
    (folder / "gone.txt").symlink_to("nowhere")
    (folder / "self").symlink_to("self")
    (folder / "sub" / "up").symlink_to("..")
    os.mkfifo(folder / "pipe.txt")
    (folder / "rows.jsonl").write_text(
        "\n".join([json.dumps({"text": PROSE.format(70)}), "{", json.dumps({"text": PROSE.format(71)})])
    )
    with open(os.fsencode(folder) + b"/caf\xe9.txt", "w") as file:
        file.write(PROSE.format(80))
    with open(os.fsencode(folder) + b"/caf\xe9.png", "w") as file:
        file.write("x")
    said = curate(f"path={folder}", "heldout=1")
    assert "documents to learn from" in said
    assert {(row["source"], row["reason"]) for row in rows(workspace, "dropped.parquet")} == {
        ("gone.txt", "unreadable"),
        ("self", "unreadable"),
        ("pipe.txt", "not a regular file"),
        ("rows.jsonl@" + str(len(json.dumps({"text": PROSE.format(70)})) + 1), "broken"),
        ("caf\\xe9.png", "unknown type"),
    }
    kept = {row["source"] for row in (*rows(workspace, "train.parquet"), *rows(workspace, "heldout.parquet"))}
    assert "caf\\xe9.txt" in kept
    assert len(kept) == 9
    strict = curate(f"path={folder}", "heldout=1", "limits.strict=true", "exclude=[gone.txt, self]")
    assert "rows.jsonl" in strict
    assert "line 2 is not JSON" in strict
