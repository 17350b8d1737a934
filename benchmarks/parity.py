"""Against transformers on the same weights: logits, perplexity, greedy answers, and the ids of conversations.

Real models, and a tiny random one of every family that transformers wrote and Matura read. `python -m
benchmarks.parity` writes the recorded figures into docs/results.md.
"""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import agreement, chats, record, reference, tiny_families
from benchmarks.agreement import Row
from benchmarks.options import Options

DECODERS = ("smollm2-135m-instruct", "gemma3-270m")
ENCODERS = ("minilm-l6",)
TINY = "tiny"
LOGIT_TOLERANCE = 1e-4
PERPLEXITY_TOLERANCE = 1e-3
LARGE_VOCABULARY = 100_000
PROMPTS = (
    "The capital of France is",
    "Once upon a time, in a village by the sea,",
    "def fibonacci(n):\n    ",
    "To make bread you need flour, water, salt and",
    "In 1969, the Apollo 11 mission",
)
QUESTION = "Give me three tips for learning a language."


def run(options: Options) -> bool:
    """Compare, print and save; False when a tolerance is exceeded. `--cases` picks real models by name, and `tiny`."""
    import torch

    torch.set_num_threads(options.threads)
    real = (*dict.fromkeys((options.model, *DECODERS)), *ENCODERS)
    known = (*real, TINY)
    if unknown := [name for name in options.cases if name not in known]:
        raise SystemExit(f"parity has no case {', '.join(unknown)}; there are: {', '.join(known)}")
    chosen = options.cases or ((options.model, TINY) if options.quick else (*real, TINY))
    rows: list[Row] = []
    details: dict[str, Any] = {}
    checks: dict[str, bool] = {}
    with torch.inference_mode():
        for name in chosen:
            print(f"  {name} ...", flush=True)
            if name == TINY:
                found, checks["every family has a tiny model"] = _tiny(options)
                rows += found
            elif name in ENCODERS:
                rows.append(_encoder(options, name))
            else:
                row, details[name] = _decoder(options, name)
                rows.append(row)
    checks |= _checks(rows)
    if options.model in chosen:
        talks = _talks(options.model)
        checks |= _talk_checks(talks)
        details["conversations"] = talks
    _show(rows, details.get("conversations", []), checks)
    text = options.read_text()[0] if details else "random ids"
    figures = {"rows": [asdict(row) for row in rows], "details": details, "checks": checks}
    record.save("parity", options, {"text": text, **figures})
    return all(checks.values())


def _decoder(options: Options, name: str) -> tuple[Row, dict[str, Any]]:
    """A real language model: a text in windows, and greedy answers to prompts and to a question."""
    from matura.model import store
    from matura.tokenizer import conversation

    made = reference.find_model(name)
    format = conversation.load(made.path)
    ours, theirs = store.load_for_inference(made.path), reference.model(made)
    row = Row(name, made.summary.get("source_quantization") or "as released")
    begin = list(format.tokenizer.prefix_ids)
    window = 256 if ours.config.vocabulary > LARGE_VOCABULARY else 1024
    limit = options.default(options.tokens, 8192, 512)
    windows = [[*begin, *ids] for ids in _windows(options, format.tokenizer, window - len(begin), limit)]
    agreement.read(row, ours, theirs, windows)
    prompts = {text: [*begin, *format.tokenizer.encode(text)] for text in PROMPTS}
    if format.template is not None:
        prompts[QUESTION] = format.prompt([{"role": "user", "content": QUESTION}])
    prompts = dict(list(prompts.items())[: 2 if options.quick else None])
    answers = agreement.answer(row, ours, theirs, list(prompts.values()), 8 if options.quick else 128)
    listed = [{"prompt": text, **one} for text, one in zip(prompts, answers, strict=True)]
    return row, {"id": made.id, "answers": listed}


def _encoder(options: Options, name: str) -> Row:
    """A real encoder: hidden states, against the files as they were released."""
    import torch
    from transformers import AutoModel

    from matura.model import store
    from matura.tokenizer import conversation

    made = reference.find_model(name)
    released = Path(made.inputs["files"]["path"])
    ours = store.load_for_inference(made.path)
    theirs: Any = AutoModel.from_pretrained(released, dtype=torch.float32)
    row, tokenizer = Row(name, "as released"), conversation.load(made.path).tokenizer
    before, after = list(tokenizer.prefix_ids), list(tokenizer.suffix_ids)
    width = min(256, ours.config.context) - len(before) - len(after)
    texts = _windows(options, tokenizer, width, options.default(options.tokens, 8192, 512))
    agreement.read(row, ours, theirs.eval(), [[*before, *ids, *after] for ids in texts])
    return row


def _windows(options: Options, tokenizer: Any, width: int, limit: int) -> list[list[int]]:
    """At most `limit` tokens of the text (0: all) in windows of `width`."""
    text = options.read_text()[1]
    ids = tokenizer.encode(text[: limit * 20] if limit else text)
    ids = ids[:limit] if limit else ids
    windows = [ids[start : start + width] for start in range(0, len(ids), width)]
    return [window for window in windows if len(window) > 1]


def _tiny(options: Options) -> tuple[list[Row], bool]:
    """Every family: transformers writes a random model, Matura reads it."""
    import torch

    from matura.model import checkpoint, store
    from matura.model.families import registry

    rows = []
    draw = torch.Generator().manual_seed(options.seed)
    for name in tiny_families.MODELS:
        with tempfile.TemporaryDirectory() as folder:
            theirs = tiny_families.save(name, Path(folder), options.seed)
            ours = store.build(checkpoint.read(folder), folder)
            row = Row(name, "tiny random")
            ids = torch.randint(3, tiny_families.VOCABULARY, (8, 96), generator=draw).tolist()
            agreement.read(row, ours, theirs, ids)
            if ours.decoder is not None:
                agreement.answer(row, ours, theirs, [one[:24] for one in ids], 64)
        rows.append(row)
    families = tiny_families.families(registry.by_model_type)
    return rows, families == {family.name for family in registry.FAMILIES}


def _talks(model: str) -> list[dict[str, Any]]:
    from matura.tokenizer import conversation

    made = reference.find_model(model)
    return chats.compare(conversation.load(made.path), reference.tokenizer(made))


def _checks(rows: list[Row]) -> dict[str, bool]:
    return {
        f"logits: largest relative error <= {LOGIT_TOLERANCE:g}": all(
            row.logit_error <= LOGIT_TOLERANCE for row in rows
        ),
        f"perplexity: within {PERPLEXITY_TOLERANCE:.1%}": all(
            (row.perplexity_difference or 0) <= PERPLEXITY_TOLERANCE for row in rows
        ),
        "greedy answers: identical": all(row.answers == row.answers_identical for row in rows),
    }


def _talk_checks(talks: list[dict[str, Any]]) -> dict[str, bool]:
    same = [talk["identical"] for talk in talks if talk["expected"] == "same"]
    return {
        "conversations: identical ids": all(same),
        "conversations: different where ours differs on purpose": not any(
            talk["identical"] for talk in talks if talk["expected"] != "same"
        ),
    }


def cells(row: Row) -> list[Any]:
    """A row of the table: what has no meaning for the model is a dash."""
    answers = (
        "-" if row.answers is None else f"{row.answers_identical} of {row.answers} x {row.answer_tokens}"
    )
    difference = row.perplexity_difference
    shown = "-" if difference is None else f"{difference:.1e} ({row.perplexity_theirs:.4g})"
    return [row.model, row.weights, row.tokens, f"{row.logit_error:.1e}", answers, shown]


COLUMNS = ("model", "weights", "tokens", "logit error", "greedy answers identical", "perplexity difference")


def _show(rows: list[Row], talks: list[dict[str, Any]], checks: dict[str, bool]) -> None:
    record.table(COLUMNS, [cells(row) for row in rows])
    print()
    if talks:
        columns = [
            "conversation",
            "turns",
            "ids ours",
            "ids theirs",
            "markup ours",
            "markup theirs",
            "identical",
        ]
        keys = ["conversation", "turns", "tokens_ours", "tokens_theirs"]
        keys += ["special_tokens_ours", "special_tokens_theirs"]
        same = ["differs on purpose" if talk["expected"] != "same" else talk["identical"] for talk in talks]
        record.table(
            columns, [[*(talk[key] for key in keys), end] for talk, end in zip(talks, same, strict=True)]
        )
        print()
    record.table(["check", "passed"], [[name, passed] for name, passed in checks.items()])


def page(text: str, recorded: dict[str, Any]) -> str:
    """A page of the documentation with the table between `<!-- parity -->` and `<!-- end -->` as it was recorded."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    lines += [f"| {' | '.join(map(str, cells(Row(**row))))} |" for row in recorded["rows"]]
    table = "\n".join(lines)
    return re.sub(r"(<!-- parity -->\n).*?(<!-- end -->)", rf"\1\n{table}\n\n\2", text, flags=re.DOTALL)


if __name__ == "__main__":  # write the recorded figures into the page
    place = record.RESULTS.parents[1] / "docs" / "results.md"
    stored = json.loads((record.RESULTS / "parity.json").read_text(encoding="utf-8"))
    place.write_text(page(place.read_text(encoding="utf-8"), stored), encoding="utf-8")
