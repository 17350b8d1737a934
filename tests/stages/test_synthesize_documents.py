"""A teacher writes from documents: a model of ours or a server, killed and resumed, its key never seen again."""

import json
from pathlib import Path
from typing import Any

import pytest

from matura.core.artifact import Artifact
from matura.core.config import parse
from matura.core.errors import ConfigError, MaturaError
from matura.core.raw import raw_input
from matura.core.records import Conversation, read_conversations, read_documents
from matura.stages import curate, synthesize
from tests.data.synthesis.fake_endpoint import Reply, said, serving
from tests.tiny_models import corpus, make, pulled

KEY = "sk-very-secret-0123456789"


def made_from(
    folder: Path, documents: Artifact, *, tasks: dict[str, Any] | None = None, **settings: Any
) -> Artifact:
    """`run`, for an input in a group of settings."""

    values = {
        "tasks": {"documents": str(documents.path)} | (tasks or {}),
        "heldout": 2,
        "min_characters": 1,
    } | settings
    inputs: dict[str, Any] = {"tasks.documents": documents}
    if isinstance(values.get("model"), Artifact):
        inputs["model"] = values["model"]
        values["model"] = str(values["model"].path)
    if "templates" in values["tasks"]:
        inputs["tasks.templates"] = raw_input(Path(values["tasks"]["templates"]))
    config = parse(synthesize.Config, values, "test")
    return make(synthesize, folder, config, inputs)


def rows(made: Artifact) -> list[Conversation]:
    return [row for part in ("train.jsonl", "heldout.jsonl") for row in read_conversations(made.file(part))]


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return corpus(tmp_path_factory.mktemp("corpus") / "c", documents=8)


SHORT_TEMPLATES = (
    "version: tiny\nrephrase: '{{ document[:20] }}<document>'\ncontinue: '{{ document[:30] }}<document>'\n"
)
LOCAL: dict[str, Any] = {
    "kinds": ["rephrase", "continue"], "styles": ["simple"], "characters": 100,
    "draw": {"max_new_tokens": 12, "top_k": 50},
}  # fmt: skip


def test_a_model_of_ours_writes_the_same_again_and_when_killed(
    documents: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matura.infer import engine

    model = pulled(tmp_path)
    own = tmp_path / "own.yaml"
    own.write_text(SHORT_TEMPLATES)
    tasks = LOCAL | {"templates": str(own)}
    whole = made_from(tmp_path / "whole", documents, model=model, tasks=tasks, batch=4)
    found = rows(whole)
    assert len(found) > 3
    assert {row.provenance["template"] for row in found} == {"continue@tiny"}
    assert whole.summary["tasks"]["rephrase"] == {"asked": 6, "failed: unfinished": 6}
    assert {row.provenance["teacher"] for row in found} == {f"model:{model.id}"}
    generate, calls = engine.generate, list[int]()

    def dying(*args: Any, **settings: Any) -> Any:
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        return generate(*args, **settings)

    monkeypatch.setattr(engine, "generate", dying)
    with pytest.raises(KeyboardInterrupt):
        made_from(tmp_path / "killed", documents, model=model, tasks=tasks, batch=4)
    monkeypatch.setattr(engine, "generate", lambda *a, **k: calls.append(1) or generate(*a, **k))
    assert made_from(tmp_path / "killed", documents, model=model, tasks=tasks, batch=4).id == whole.id
    assert len(calls) == 3  # of three groups, two were there
    other = made_from(tmp_path / "other", documents, model=model, tasks=tasks, batch=4, seed=1)
    assert not {row.text for row in rows(other)} & {row.text for row in found}


def test_a_model_without_chat_continues_the_documents(documents: Artifact, tmp_path: Path) -> None:
    plain = pulled(tmp_path, **{"tokenizer.chat_template": "{{ messages[0].content }}"})
    settings = json.loads((plain.path / "conversation.json").read_text())
    (plain.path / "conversation.json").write_text(json.dumps({**settings, "template": None}))
    with pytest.raises(MaturaError, match=r"can only continue: tasks.kinds=\[continue\]"):
        made_from(tmp_path / "a", documents, model=plain, tasks=LOCAL)
    made = made_from(tmp_path / "b", documents, model=plain, tasks=LOCAL | {"kinds": ["continue"]})
    assert {row.provenance["template"] for row in rows(made)} == {"continue@plain"}


def question_answer(body: dict[str, Any], headers: dict[str, str]) -> Reply:
    """Two pairs about the number in the document; its seed makes them differ."""
    seed = body["seed"]
    return said(
        f"Question: Which number is number {seed}?\nAnswer: It is the {seed * 7}th in the {seed % 97} list of mine.\n"
    )


def test_a_server_writes_and_its_key_is_nowhere(
    documents: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    seen, dead = list[str](), [True]

    def answer(body: dict[str, Any], headers: dict[str, str]) -> Reply:
        seen.append(headers.get("Authorization", ""))
        if dead[0] and len(seen) > 3:
            return 500, {}, f"broken with {headers['Authorization']}".encode()
        return question_answer(body, headers)

    monkeypatch.setenv("TEACHER_KEY", KEY)
    with serving(answer) as url:
        endpoint = {
            "url": url, "model": "m", "key_variable": "TEACHER_KEY", "retries": 0, "concurrency": 1,
        }  # fmt: skip
        with pytest.raises(MaturaError, match="Answers got so far are kept") as caught:
            made_from(tmp_path / "made", documents, endpoint=endpoint)
        everything = b"".join(path.read_bytes() for path in (tmp_path / "made").rglob("*") if path.is_file())
        dead[0] = False
        made = made_from(tmp_path / "made", documents, endpoint=endpoint)
    assert len(seen) == 4 + 3  # three of six were kept
    assert set(seen) == {f"Bearer {KEY}"}
    assert made.summary["tasks"]["question_answer"] == {"asked": 6, "kept": 6, "outputs": 6}
    assert made.summary["kept"] == len(rows(made)) == 6
    assert rows(made)[0].provenance["teacher"] == f"{url}#m"
    everything += b"".join(path.read_bytes() for path in made.path.rglob("*") if path.is_file())
    assert b"TEACHER_KEY" in everything
    said_aloud = "".join(capfd.readouterr()) + str(caught.value)
    assert KEY.encode() not in everything
    assert KEY not in said_aloud


def test_curate_reads_what_was_written(documents: Artifact, tmp_path: Path) -> None:
    with serving(question_answer) as url:
        made = made_from(tmp_path / "made", documents, endpoint={"url": url, "model": "m"})
    from matura.core import artifact

    values = {
        "sources": {"s": {"made": str(made.path)}},
        "min_characters": 1,
        "heldout": 1,
        "engine": {"workers": 1},
    }
    config = parse(curate.Config, values, "test")
    inputs: dict[str, Any] = {"sources.s.made": made}
    draft = artifact.begin(
        tmp_path / "corpus", kind="corpus", stage="curate", version=1, config=config, inputs=inputs
    )
    found = list(read_documents(curate.run(config, inputs, draft).file("train.parquet")))
    assert found
    assert {document.meta["kind"] for document in found} == {"synthetic"}
    provenance = json.loads(found[0].meta["provenance"])
    assert provenance["template"] == "question_answer@1"
    assert provenance["teacher"] == f"{url}#m"
    assert "Which number is number" in found[0].text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "who writes"),
        ({"model": "m", "tasks": {"count": 3}}, "`tasks` needs `tasks.documents`"),
        ({"endpoint": {"url": "https://h/v1", "model": "m"}}, "an endpoint writes from documents"),
        ({"endpoint": {"url": "http://h/v1", "model": "m"}}, "expected https"),
        ({"endpoint": {"url": "https://u:p@h/v1", "model": "m"}}, "an address holds no key"),
        ({"endpoint": {"url": "https://h/v1"}}, "give both `url` and `model`"),
        ({"endpoint": {"key_variable": KEY}}, "not the key itself"),
        ({"model": "m", "tasks": {"documents": "c"}, "texts": 3}, "`texts` is for replay"),
        (
            {"endpoint": {"url": "https://h/v1", "model": "m"},
             "tasks": {"documents": "c", "draw": {"top_k": 3}}},
            "an endpoint does not take `tasks.draw.top_k`",
        ),
        ({"model": "m", "tasks": {"documents": "c", "kinds": ["continue", "continue"]}}, "named once"),
    ],
)  # fmt: skip
def test_settings_that_do_not_go_together(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(synthesize.Config, settings, "test")


def test_a_missing_or_strange_key_is_told_without_saying_it(
    documents: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = {"url": "http://127.0.0.1:1/v1", "model": "m", "key_variable": "TEACHER_KEY"}
    monkeypatch.delenv("TEACHER_KEY", raising=False)
    with pytest.raises(ConfigError, match="TEACHER_KEY is not set"):
        made_from(tmp_path / "a", documents, endpoint=endpoint)
    monkeypatch.setenv("TEACHER_KEY", f"{KEY}\nX: y")
    with pytest.raises(ConfigError, match="is no key") as caught:
        made_from(tmp_path / "b", documents, endpoint=endpoint)
    assert KEY not in str(caught.value)


def test_nothing_usable_is_told_with_the_counts(documents: Artifact, tmp_path: Path) -> None:
    with (
        serving(lambda body, headers: said("I cannot do that.")) as url,
        pytest.raises(MaturaError, match=r'6 documents.*"failed: no question and answer found": 6'),
    ):
        made_from(tmp_path / "a", documents, endpoint={"url": url, "model": "m"})
