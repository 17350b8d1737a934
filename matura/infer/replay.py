"""A model writes of its own accord: questions with its answers, from the opening of a user's turn (arXiv:2406.08464),
and plain texts from the begin token. What it writes stands for what it knows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matura.core.errors import MaturaError
from matura.core.files import write_json
from matura.core.metrics import progress
from matura.core.records import CUT, Conversation
from matura.core.settings import Draw, Sampling
from matura.infer import engine
from matura.model.transformer import Transformer
from matura.tokenizer.conversation import Format


class Writer:
    """Samples rows in groups of `batch`; a finished group is a file in `folder` and is never sampled again. `draws`
    says how a "question", an "answer" and a plain "text" are sampled."""

    def __init__(
        self,
        model: Transformer,
        format: Format,
        draws: Mapping[str, Draw],
        batch: int,
        seed: int,
        folder: Path,
    ) -> None:
        self.model, self.format, self.draws = model, format, draws
        self.batch, self.seed, self.folder = batch, seed, folder
        self.stopped = 0

    def write(self, kind: str, count: int) -> list[Conversation]:
        rows: list[Conversation] = []
        with progress(f"writing {kind}", count, unit="rows") as bar:
            for start in range(0, count, self.batch):
                numbers = range(start, min(start + self.batch, count))
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
        questions, _ = self._sample([opening] * len(numbers), self.draws["question"], "question", numbers)
        asked = [[{"role": "user", "content": text.strip()}] for text in questions]
        prompts = [self.format.prompt(messages) for messages in asked]
        answers, ended = self._sample(prompts, self.draws["answer"], "answer", numbers)
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
        texts, ended = self._sample([[begin]] * len(numbers), self.draws["text"], "text", numbers)
        rows = [
            {"id": f"text-{n}", "messages": [], "text": text} for n, text in zip(numbers, texts, strict=True)
        ]
        return {"rows": rows, "stopped": sum(ended)}

    def _sample(
        self, prompts: list[list[int]], draw: Draw, what: str, numbers: Sequence[int]
    ) -> tuple[list[str], list[bool]]:
        seeds = [_seed(self.seed, what, n) for n in numbers]
        return sampled(self.model, self.format, prompts, draw, seeds, self.batch)


def sampled(
    model: Transformer, format: Format, prompts: list[list[int]], draw: Draw, seeds: list[int], batch: int
) -> tuple[list[str], list[bool]]:
    """The texts, and whether each ended by itself."""
    stop = {*format.stop_ids, *([format.begin_id] if format.begin_id is not None else [])}
    each = [Sampling(**dict(draw), seed=seed) for seed in seeds]
    answers = engine.generate(model, prompts, each, tuple(stop), batch=batch)
    texts = [format.tokenizer.decode(ids, skip_special=True) for ids in answers]
    return texts, [len(ids) < draw.max_new_tokens for ids in answers]


def _seed(seed: int, what: str, number: int) -> int:
    """A seed for each row that no other row or part shares."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{what}/{number}".encode(), digest_size=6).digest(), "big")
