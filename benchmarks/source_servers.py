"""Servers on loopback for `sources`: each a context that fills itself with texts and gives what a recipe needs.

Each raises `Absent` when the program it needs is not on this machine.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from benchmarks.serving import serving

SECRET = "s3cr3t/p@ss:w+rd"


class Absent(Exception):  # noqa: N818
    """The program is not here."""


@contextlib.contextmanager
def database(kind: str, texts: Sequence[str]) -> Iterator[tuple[list[str], dict[str, str]]]:
    """PostgreSQL or MariaDB with a table `pages`; the settings of its source, and the environment."""
    with tempfile.TemporaryDirectory(prefix="matura-db-") as folder:
        start = _postgres if kind == "postgresql" else _mariadb
        port = _port()
        with start(Path(folder), port):
            url = f"{kind}://reader:${{DB_PASSWORD}}@127.0.0.1:{port}/texts"
            _fill(url, texts)
            query = "SELECT id, body, made FROM pages WHERE body LIKE '%fox%' ORDER BY id"
            yield [f"path={url}", f"query={query}", "text=body"], {"DB_PASSWORD": SECRET}


def _fill(url: str, texts: Sequence[str]) -> None:
    import sqlalchemy

    from matura.data.reading import sql

    os.environ["DB_PASSWORD"] = SECRET
    engine = sql._engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE pages (id INTEGER, body TEXT, made DATE)")
        insert = sqlalchemy.text("INSERT INTO pages VALUES (:id, :body, '2024-05-01')")
        connection.execute(insert, [{"id": i, "body": text} for i, text in enumerate(texts)])
    engine.dispose()


@contextlib.contextmanager
def _postgres(folder: Path, port: int) -> Iterator[None]:
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin")) or [
        Path(shutil.which("initdb") or "").parent
    ]
    if not (programs[-1] / "initdb").is_file():
        raise Absent("PostgreSQL (Debian: postgresql)")
    user = {"user": "postgres"} if os.getuid() == 0 else {}
    (folder / "password").write_text(SECRET)
    folder.chmod(0o755)
    data = folder / "data"
    data.mkdir()
    if user:
        shutil.chown(data, "postgres")
        shutil.chown(folder / "password", "postgres")
    options = ["-U", "reader", "-A", "scram-sha-256", "--pwfile", str(folder / "password"), "-E", "UTF8"]
    _quiet([programs[-1] / "initdb", "-D", data, "--no-sync", *options], **user)
    server = [programs[-1] / "postgres", "-D", data, "-p", port, "-k", data, "-h", "127.0.0.1"]
    with _running(server, port, **user):
        environment = {**os.environ, "PGPASSWORD": SECRET}
        create = ["-h", "127.0.0.1", "-p", port, "-U", "reader", "texts"]
        _until(lambda: _quiet([programs[-1] / "createdb", *create], env=environment))
        yield


@contextlib.contextmanager
def _mariadb(folder: Path, port: int) -> Iterator[None]:
    if not shutil.which("mariadbd") or not shutil.which("mariadb-install-db"):
        raise Absent("MariaDB (Debian: mariadb-server)")
    data = folder / "data"
    data.mkdir()
    folder.chmod(0o755)
    user = ["--user=mysql"] if os.getuid() == 0 else []
    if user:
        shutil.chown(data, "mysql")
    _quiet(["mariadb-install-db", "--no-defaults", *user, f"--datadir={data}", "--skip-test-db"])
    settings = [f"--datadir={data}", f"--socket={data}/s", f"--port={port}", "--bind-address=127.0.0.1"]
    with _running(["mariadbd", "--no-defaults", *user, *settings, f"--pid-file={data}/pid"], port):
        statements = (
            "CREATE DATABASE texts CHARACTER SET utf8mb4; "
            f"CREATE USER reader@'127.0.0.1' IDENTIFIED BY '{SECRET}'; GRANT ALL ON texts.* TO reader@'127.0.0.1'"
        )
        _until(lambda: _quiet(["mariadb", "--no-defaults", f"--socket={data}/s", "-e", statements]))
        yield


@contextlib.contextmanager
def object_store(python: str, texts: Sequence[str]) -> Iterator[tuple[list[str], dict[str, str]]]:
    """A bucket of moto with a folder of texts, one of them packed, and something of no use."""
    if subprocess.run([python, "-c", "import moto.server, boto3"], capture_output=True).returncode:
        raise Absent("moto (pip install 'moto[s3,server]'; --peer names another Python that has it)")
    port = _port()
    environment = {
        "AWS_ACCESS_KEY_ID": "AKIAREADER",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }
    fill = (
        "import boto3, json, sys, gzip\n"
        f"s = boto3.client('s3', endpoint_url='http://127.0.0.1:{port}', region_name='us-east-1')\n"
        "s.create_bucket(Bucket='texts')\n"
        "for i, text in enumerate(json.load(sys.stdin)):\n"
        "    name, body = f'in/part {i % 3}/{i}.md', text.encode()\n"
        "    if i == 0: name, body = name + '.gz', gzip.compress(body)\n"
        "    s.put_object(Bucket='texts', Key=name, Body=body)\n"
        "s.put_object(Bucket='texts', Key='in/logo.png', Body=b'x' * 100)\n"
        "s.put_object(Bucket='texts', Key='other/no.md', Body=b'not asked for ' * 30)\n"
    )
    with _running([python, "-m", "moto.server", "-H", "127.0.0.1", "-p", port], port):
        subprocess.run(
            [python, "-c", fill],
            input=json.dumps(list(texts)).encode(),
            env={**os.environ, **environment},
            check=True,
        )
        yield ["path=s3://texts/in/"], environment


@contextlib.contextmanager
def web(texts: Sequence[str]) -> Iterator[tuple[list[str], dict[str, str]]]:
    """JSON Lines behind a password and a redirect to another host, by a server that breaks off every answer."""
    body = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    wanted = "Basic " + base64.b64encode(f"reader:{SECRET}".encode()).decode()

    class Handler(_Quiet):
        def do_GET(self) -> None:
            host = self.headers["Host"].partition(":")[0]
            if host == "127.0.0.1":
                if self.headers["Authorization"] != wanted:
                    self.send_error(401)
                    return
                port = self.connection.getsockname()[1]
                self.answer(302, b"", Location=f"http://localhost:{port}/texts.jsonl")
            elif "Authorization" in self.headers:
                self.send_error(400, "the password went to another host")
            else:
                self.part_of(body, most=len(body) // 4)

    with serving(Handler) as port:
        yield [f"path=http://reader:${{WEB_PASSWORD}}@127.0.0.1:{port}/get"], {"WEB_PASSWORD": SECRET}


@contextlib.contextmanager
def hub(texts: Sequence[str]) -> Iterator[tuple[list[str], dict[str, str]]]:
    """A stand-in for the Hugging Face hub with one dataset in two Parquet files; it wants a token."""
    import pyarrow
    import pyarrow.parquet

    files, half = {"README.md": b"# a card"}, len(texts) // 2
    for name, part in (("data/a.parquet", texts[:half]), ("data/b.parquet", texts[half:])):
        buffer = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.table({"text": list(part)}), buffer)
        files[name] = buffer.getvalue()
    commit = hashlib.sha1(b"".join(files.values())).hexdigest()

    class Handler(_Quiet):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            name = self.path.partition("?")[0].partition(f"/resolve/{commit}/")[2]
            if self.headers["Authorization"] != f"Bearer {SECRET}":
                self.send_error(401)
            elif name in files:
                tag = hashlib.sha256(files[name]).hexdigest()
                self.part_of(files[name], None, **{"ETag": f'"{tag}"', "X-Repo-Commit": commit})
            else:
                listed = [{"rfilename": name, "size": len(body)} for name, body in files.items()]
                info = {"id": "own/texts", "sha": commit, "siblings": listed, "tags": [], "private": False}
                self.answer(200, json.dumps(info).encode(), **{"Content-Type": "application/json"})

    with serving(Handler) as port:
        yield ["path=hf:own/texts"], {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_TOKEN": SECRET}


class _Quiet(BaseHTTPRequestHandler):
    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def part_of(self, body: bytes, most: int | None = None, **headers: str) -> None:
        """The range asked for, or all; after `most` bytes the connection breaks."""
        start = int((self.headers["Range"] or "bytes=0-")[6:].partition("-")[0])
        told = {"ETag": '"1"', **headers, "Content-Length": str(len(body) - start)}
        if start:
            told["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        self.answer(206 if start else 200, body[start:][:most], **told)
        self.close_connection = True

    def log_message(self, *args: Any) -> None:
        pass


@contextlib.contextmanager
def _running(command: Sequence[Any], port: int, **options: Any) -> Iterator[None]:
    null = subprocess.DEVNULL
    process = subprocess.Popen(list(map(str, command)), stdout=null, stderr=null, cwd="/", **options)
    try:
        _until(lambda: socket.create_connection(("127.0.0.1", port), 1).close())
        yield
    finally:
        process.terminate()
        process.wait(30)


def _until(action: Callable[[], Any], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            action()
            return
        except (OSError, subprocess.CalledProcessError):
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def _quiet(command: Sequence[Any], **options: Any) -> None:
    subprocess.run(list(map(str, command)), check=True, capture_output=True, cwd="/", **options)


def _port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
