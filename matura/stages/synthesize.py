"""A model writes its own replay: questions with its answers, and plain texts.

Training a model on new documents makes it forget. Mixing in text that stands for what it already knows prevents that
(experience replay), and the closest such text at hand is the model's own. Nobody has to supply prompts: the model
continues its chat template at the user's turn, so it asks the questions too (arXiv:2406.08464), and it writes plain
texts from the begin token.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from matura.core import config
from matura.core.artifact import Artifact, Draft, RawInput
from matura.core.config import Input
from matura.core.errors import MaturaError
from matura.core.files import write_json
from matura.core.metrics import progress
from matura.core.plan import Estimate
from matura.core.records import CUT, Conversation, write_conversations
from matura.core.settings import Draw, Sampling

if TYPE_CHECKING:
    from matura.model.transformer import Transformer
    from matura.tokenizer.conversation import Format

KIND = "conversations"
VERSION = 2
TOKENS_PER_SECOND = 130.0  # batched sampling of a 135M model on 2 cores


class Config(config.Config):
    """What to write, and how freely."""

    model: Annotated[str, Input("model")] = Field(description="The model that writes")
    conversations: int = Field(
        48, ge=0, description="Questions with answers to keep; 0 for a model without chat"
    )
    texts: int = Field(24, ge=0, description="Plain texts to keep")
    heldout: int = Field(12, ge=1, description="Conversations (or texts) of these held out for the exam")
    question: Draw = Field(
        Draw(max_new_tokens=48, temperature=1.0, top_k=200, top_p=0.95),
        description="How questions are sampled",
    )
    answer: Draw = Field(
        Draw(max_new_tokens=128, temperature=0.7, top_k=200, top_p=0.95),
        description="How answers are sampled",
    )
    text: Draw = Field(
        Draw(max_new_tokens=160, temperature=1.0, top_k=200, top_p=0.95),
        description="How plain texts are sampled",
    )
    min_characters: int = Field(20, ge=1, description="Shorter answers and texts are dropped")
    batch: int = Field(24, ge=1, description="Requests that run together")
    seed: int = Field(0, ge=0, description="Another seed writes other text")


def estimate(config: Config, inputs: dict[str, Artifact | RawInput | None]) -> Estimate:
    """Time from the tokens to write; memory for the model in float32."""
    tokens = config.conversations * (0.5 * config.question.max_new_tokens + config.answer.max_new_tokens)
    tokens += config.texts * config.text.max_new_tokens
    model = inputs.get("model")
    size = (
        sum(f["bytes"] for f in model.record["files"].values()) if isinstance(model, Artifact) else 540 << 20
    )
    return Estimate(tokens / TOKENS_PER_SECOND, 2 * size, 4 << 20, f"about {tokens:,.0f} tokens to write")


def run(config: Config, inputs: dict[str, Artifact | RawInput], draft: Draft) -> Artifact:
    """Make train.jsonl, heldout.jsonl and report.json. Every group of `batch` rows is kept if the run is killed.

    Raises MaturaError when the model has no chat template (set conversations=0) or nothing usable came out.
    """
    from matura.model import store
    from matura.model.allocator import keep_freed_memory
    from matura.tokenizer import conversation

    parent = inputs["model"]
    assert isinstance(parent, Artifact)
    format = conversation.load(parent.path)
    if config.conversations and format.template is None:
        raise MaturaError(
            f"{parent.path} has no chat template, so it cannot write conversations: set conversations=0"
        )
    keep_freed_memory()
    writer = _Writer(store.load_for_inference(parent.path), format, config, draft.resume)
    rows = writer.write("conversations", config.conversations) + writer.write("texts", config.texts)
    kept = _unique([row for row in rows if _usable(row, config)])
    chats = [row for row in kept if row.messages]
    pool = chats or kept
    if len(pool) <= config.heldout:
        raise MaturaError(
            f"only {len(pool)} usable rows came out of {len(rows)}, and {config.heldout} are to be held out: write "
            "more (conversations=, texts=) or hold out fewer (heldout=)"
        )
    # Whole answers first: the exam reads them with their stop token.
    heldout = sorted(pool, key=lambda row: bool(row.messages) and CUT.items() <= row.messages[-1].items())
    heldout = heldout[: config.heldout]
    train = [row for row in kept if row not in heldout]
    write_conversations(draft.path / "train.jsonl", train)
    write_conversations(draft.path / "heldout.jsonl", heldout)
    summary = {
        "line": f"{len(train)} rows of replay and {len(heldout)} held out, by {parent.path.name}",
        "written": len(rows),
        "kept": len(kept),
        "train": len(train),
        "heldout": len(heldout),
        "tokens": sum(len(format.tokenizer.encode(_text(row))) for row in train),
        "stopped": writer.stopped,
    }
    write_json(draft.path / "report.json", summary)
    return draft.commit(summary)


class _Writer:
    """Samples rows in groups of `config.batch`; a finished group is a file and is never sampled again."""

    def __init__(self, model: "Transformer", format: "Format", config: Config, folder: Path) -> None:
        self.model, self.format, self.config, self.folder = model, format, config, folder
        self.stopped = 0

    def write(self, kind: str, count: int) -> list[Conversation]:
        rows: list[Conversation] = []
        with progress(f"writing {kind}", count, unit="rows") as bar:
            for start in range(0, count, self.config.batch):
                numbers = range(start, min(start + self.config.batch, count))
                path = self.folder / f"{kind}-{start:06d}.json"
                if path.is_file():
                    group = json.loads(path.read_text(encoding="utf-8"))
                else:
                    group = self._conversations(numbers) if kind == "conversations" else self._texts(numbers)
                    write_json(path, group)
                self.stopped += group["stopped"]
                rows += [
                    Conversation(row["id"], tuple(row["messages"]), row["text"]) for row in group["rows"]
                ]
                bar.advance(len(numbers))
        return rows

    def _conversations(self, numbers: Sequence[int]) -> dict[str, Any]:
        opening = self.format.opening("user")
        questions, _ = self._sample([opening] * len(numbers), self.config.question, "question", numbers)
        asked = [[{"role": "user", "content": text.strip()}] for text in questions]
        prompts = [self.format.prompt(messages) for messages in asked]
        answers, ended = self._sample(prompts, self.config.answer, "answer", numbers)
        rows = []
        for n, messages, answer, whole in zip(numbers, asked, answers, ended, strict=True):
            reply = {"role": "assistant", "content": answer.strip()} | ({} if whole else CUT)
            said = [*messages, reply] if messages[0]["content"] else []
            rows.append({"id": f"conversation-{n}", "messages": said, "text": ""})
        return {"rows": rows, "stopped": sum(ended)}

    def _texts(self, numbers: Sequence[int]) -> dict[str, Any]:
        begin = self.format.begin_id
        if begin is None:
            raise MaturaError("this tokenizer has no begin token to start a text from: set texts=0")
        texts, ended = self._sample([[begin]] * len(numbers), self.config.text, "text", numbers)
        rows = [
            {"id": f"text-{n}", "messages": [], "text": text} for n, text in zip(numbers, texts, strict=True)
        ]
        return {"rows": rows, "stopped": sum(ended)}

    def _sample(
        self, prompts: list[list[int]], draw: Draw, what: str, numbers: Sequence[int]
    ) -> tuple[list[str], list[bool]]:
        """The texts, and whether each ended by itself."""
        from matura.infer import engine

        stop = {*self.format.stop_ids, *([self.format.begin_id] if self.format.begin_id is not None else [])}
        seeds = [_seed(self.config.seed, what, n) for n in numbers]
        each = [Sampling(**dict(draw), seed=seed) for seed in seeds]
        answers = engine.generate(self.model, prompts, each, tuple(stop), batch=self.config.batch)
        texts = [self.format.tokenizer.decode(ids, skip_special=True) for ids in answers]
        return texts, [len(ids) < draw.max_new_tokens for ids in answers]


def _seed(seed: int, what: str, number: int) -> int:
    """A seed for each row that no other row or part shares."""
    import hashlib

    return int.from_bytes(hashlib.blake2b(f"{seed}/{what}/{number}".encode(), digest_size=6).digest(), "big")


def _text(row: Conversation) -> str:
    return row.text or "\n".join(message["content"] for message in row.messages)


def _usable(row: Conversation, config: Config) -> bool:
    if not row.messages:
        return len(row.text.strip()) >= config.min_characters
    question, answer = (message["content"] for message in row.messages)
    return bool(question) and len(answer) >= config.min_characters


def _unique(rows: Sequence[Conversation]) -> list[Conversation]:
    """Rows whose text was not there before, in their order."""
    first: dict[str, Conversation] = {}
    for row in rows:
        first.setdefault(_text(row), row)
    return list(first.values())
