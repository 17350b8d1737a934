"""What a model is to learn from, read: documents or conversations, of an artifact or of people's own files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from matura.core.artifact import Artifact
from matura.core.conversation_settings import FOR_FILES, ConversationData
from matura.core.errors import ConfigError, MaturaError
from matura.core.preferences import HELDOUT, TRAIN, read_rankings
from matura.core.raw import RawInput
from matura.core.records import Conversation, Document, Held, read_conversations, read_documents
from matura.data import conversations
from matura.data.preferences import selection
from matura.model.config import ModelConfig
from matura.tokenizer.conversation import Format
from matura.tokenizer.prompt import Prompt, trained
from matura.train import examples
from matura.train.batches import PackedBatch, PackedBatches, Rows, pack
from matura.train.examples import Made

SIDES = ("train", "heldout")
One = TypeVar("One")


@dataclass(frozen=True)
class Material:
    """Rows to learn from and rows held out, all of one kind, and what reading them found."""

    train: Sequence[Document] | Sequence[Conversation]
    heldout: Sequence[Document] | Sequence[Conversation]
    found: dict[str, Any] = field(default_factory=dict)


def read(source: Artifact | RawInput, settings: ConversationData) -> Material:
    """A corpus, what `synthesize` wrote, the best answers of what `rank` judged, or files of conversations (see
    `matura.data.conversations`).

    All rows are held in memory: more text than `records.MAX_HELD` raises MaturaError.
    """
    if isinstance(source, RawInput):
        loaded = conversations.load(source.path, settings)
        found = {"heldout_rows": len(loaded.heldout), "bad_rows": len(loaded.bad)}
        return Material(loaded.train, loaded.heldout, found)
    held = Held(source.path)
    if source.kind == "corpus":
        files = [read_documents(source.file(f"{side}.parquet")) for side in SIDES]
        documents = [[held.add(row) for row in rows] for rows in files]
        return Material(documents[0], documents[1])
    if source.kind == "preferences":
        return _best(source)
    lines = [read_conversations(source.file(f"{side}.jsonl")) for side in SIDES]
    talks = [[held.add(row) for row in rows] for rows in lines]
    return Material(talks[0], talks[1])


def _best(source: Artifact) -> Material:
    """Of every prompt that somebody judged the answer that was judged best."""
    sides = [list(read_rankings(source.file(name))) for name in (TRAIN, HELDOUT)]
    talks = [[talk for row in side if (talk := selection.lesson(row)) is not None] for side in sides]
    unjudged = sum(map(len, sides)) - sum(map(len, talks))
    return Material(talks[0], talks[1], {"unjudged_prompts": unjudged})


def as_trained(model: Artifact, source: Artifact | RawInput) -> ConversationData:
    """How the training of a model (or of what it was merged from) read its files, so that what was held out then is
    held out now; an artifact has a held-out part of its own."""
    while model.record["stage"] == "merge":
        model = model.input("model")
    trained_on_files = model.record["stage"] == "finetune" and isinstance(source, RawInput)
    return ConversationData(**(model.config.get("data", {}) if trained_on_files else {}))


def prompted(material: Material, prompt: Prompt, *, examples: bool) -> Material:
    """Conversations with a prompt around them, with its examples or without; see `tokenizer.prompt.trained`."""
    sides = [
        [trained(row, prompt, examples=examples) for row in side if isinstance(row, Conversation)]
        for side in (material.train, material.heldout)
    ]
    return replace(material, train=sides[0], heldout=sides[1])


def check_settings(settings: ConversationData, source: Artifact | RawInput | None) -> None:
    """Raises ConfigError for settings of files that were given although what is learned is no file."""
    if isinstance(source, RawInput):
        return
    if given := settings.changed(*FOR_FILES):
        raise ConfigError(f"data.{given[0]} is for files of conversations, and there are none to learn from")


def longest(settings: Any, model: ModelConfig) -> int:
    """Tokens of the longest example: `settings.sequence`, at most what the model reads at once beside a prefix.

    Raises ConfigError when more was asked for than that; the default is cut to it.
    """
    prefix = settings.prefix.tokens if settings.method == "prefix" else 0
    most = model.longest(model.last_stack) - prefix
    if settings.sequence > most and "sequence" in settings.model_fields_set:
        beside = f" beside prefix.tokens={prefix}" if prefix else ""
        raise ConfigError(
            f"sequence={settings.sequence}: the model reads at most {most} tokens at once{beside}; "
            f"take sequence={most} or less"
        )
    return min(settings.sequence, most)


def make(rows: Sequence[Any], format: Format, length: int, settings: ConversationData) -> Made:
    """The examples of documents or conversations, each at most `length` tokens long."""
    if rows and isinstance(rows[0], Document):
        return Made(examples.from_documents(rows, format, length), Counter())
    return examples.from_conversations(
        rows, format, length, turns=settings.turns, truncation=settings.truncation
    )


def mixed(
    main: Material,
    replay: Material | None,
    format: Format,
    settings: ConversationData,
    *,
    tokens: int,
    room: int,
    length: int,
    seed: int,
    pack: Callable[..., PackedBatch] = pack,
) -> tuple[PackedBatches, dict[str, Any]]:
    """Updates of `tokens`, of which `room` are the main material's and the rest replay; and what they are made of.

    No example is longer than `length` or its share of an update. Raises MaturaError where nothing is trained.
    """
    made = make(main.train, format, min(length, room), settings)
    counts: dict[str, Any] = {
        "examples": len(made.examples),
        "dropped_rows": made.dropped.total(),
        "dropped": dict(sorted(made.dropped.items())),
        **main.found,
    }
    sources = [rows("learn from", made.examples, room, seed, made.dropped)]
    if replay is not None and room < tokens:
        again = make(replay.train, format, min(length, tokens - room), settings)
        sources.append(rows("replay", again.examples, tokens - room, seed + 1, again.dropped))
        counts |= {"replay_examples": len(again.examples), "replay_dropped_rows": again.dropped.total()}
    counts["fill"] = [round(source.fill, 4) for source in sources]
    return PackedBatches(sources, pack=pack), counts


def rows(
    what: str, examples: Sequence[Any], tokens: int, seed: int, dropped: Mapping[str, int] | None = None
) -> Rows:
    """Examples in rows of `tokens`. Raises MaturaError when none has anything to train on: to do `what`, and with why
    rows were `dropped`."""
    if not any(example.trained for example in examples):
        why = ", ".join(f"{n:,} {reason}" for reason, n in (dropped or {}).items()) or "no rows"
        raise MaturaError(
            f"there is nothing to {what}: no example has a trained token left after cutting to length ({why})"
        )
    return Rows(examples, tokens=tokens, seed=seed)


def _length(example: Any) -> int:
    return len(example.ids)


def spread(made: Sequence[One], tokens: int, length: Callable[[One], int] = _length) -> list[One]:
    """Examples from all over the list that have about `tokens` together; at least one."""
    total = sum(map(length, made))
    count = max(1, min(len(made), len(made) * tokens // max(total, 1)))
    return [made[i * len(made) // count] for i in range(count)] if made else []
