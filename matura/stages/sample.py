"""Several answers of a model to each prompt, to be ranked by people or by rewards.

Answers are drawn by the one engine with the model's own template and stop tokens. Prompts that were held out stay held
out: they have a file of their own.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, model_validator

from matura.core import config, costs
from matura.core.artifact import Artifact, Draft, RawInput
from matura.core.config import Input
from matura.core.errors import MaturaError
from matura.core.files import write_json
from matura.core.metrics import progress
from matura.core.plan import Estimate
from matura.core.preference_settings import PreferenceData
from matura.core.preferences import HELDOUT, MAX_ANSWERS, SAMPLES, Answer, Ranking, write_rankings
from matura.core.settings import Draw

if TYPE_CHECKING:
    from matura.model.transformer import Transformer
    from matura.tokenizer.conversation import Format

KIND = "samples"
VERSION = 1
TOKENS_PER_SECOND = 130.0  # batched sampling of a 135M model on 2 cores
FILES = {"train": SAMPLES, "heldout": HELDOUT}
"""Side -> the file of its prompts with their answers."""


class Config(config.Config):
    """Who answers what, how often, and how freely."""

    model: Annotated[str, Input("model")] = Field(description="The model that answers")
    prompts: Annotated[str, Input("conversations", "preferences", "samples", "raw")] = Field(
        description="What is asked: everything before the last answer of each row. What another stage wrote, or files"
    )
    data: PreferenceData = Field(PreferenceData(), description="How files of prompts are read")
    count: int | None = Field(
        256,
        ge=0,
        description="Prompts to learn from, chosen by `seed`; none given (null): all; 0: only held-out ones",
    )
    heldout: int | None = Field(
        64, ge=0, description="Held-out prompts, the same for every seed; null: all of them; 0: none"
    )
    k: int = Field(4, ge=1, le=MAX_ANSWERS, description="Answers to each prompt")
    draw: Draw = Field(Draw(max_new_tokens=128), description="How answers are drawn")
    batch: int = Field(32, ge=1, description="Answers that are written together")
    seed: int = Field(0, ge=0, description="Another seed asks other prompts and draws other answers")

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if self.count == 0 and self.heldout == 0:
            raise ValueError("count=0 and heldout=0 leave nothing to ask")
        if self.draw.temperature == 0 and self.k > 1:
            raise ValueError(
                "draw.temperature=0 writes the same answer every time: take k=1, or a temperature above 0"
            )
        return self


def estimate(config: Config, inputs: dict[str, Artifact | RawInput | None]) -> Estimate:
    """Time from the tokens to write; memory for the model in float32."""
    asked = (256 if config.count is None else config.count) + (
        64 if config.heldout is None else config.heldout
    )
    tokens = asked * config.k * config.draw.max_new_tokens
    model = inputs.get("model")
    size = costs.weight_bytes(model)
    return Estimate(
        costs.heaviness(model) * tokens / TOKENS_PER_SECOND,
        2 * size,
        8 * tokens,
        f"at most {tokens:,} tokens to write",
    )


def run(config: Config, inputs: dict[str, Artifact | RawInput], draft: Draft) -> Artifact:
    """Make samples.jsonl, heldout.jsonl and report.json. Every group of answers is kept if the run is killed.

    Raises MaturaError when the model has no chat template, and when no prompt leaves room for an answer.
    """
    from matura.data.preferences import prompts
    from matura.model import store
    from matura.model.allocator import keep_freed_memory
    from matura.tokenizer import conversation

    writer = inputs["model"]
    assert isinstance(writer, Artifact)
    format = conversation.load(writer.path)
    found = prompts.load(inputs["prompts"], config.data)
    apart = {row.group for row in found.heldout if row.group}
    learned = [row for row in found.train if row.group not in apart]
    sides = {
        "train": _chosen(learned, config.count, config.seed),
        "heldout": _chosen(found.heldout, config.heldout, 0),
    }
    if not any(sides.values()):
        raise MaturaError(
            f"{config.prompts} has no prompts on the side that is asked for; see `count` and `heldout`"
        )
    keep_freed_memory()
    asking = _Asking(store.load_for_inference(writer.path), format, config, draft, f"model:{writer.id[:12]}")
    told = {side: asking.side(side, rows) for side, rows in sides.items()}
    summary: dict[str, Any] = {"line": _line(config.k, told), **told, "read": found.found}
    if lost := len(found.train) - len(learned):
        summary["left_out_for_heldout_groups"] = lost
    write_json(draft.path / "report.json", summary)
    return draft.commit(summary)


class _Asking:
    """Asks a model in groups of prompts; a finished group is a file and is never asked again."""

    def __init__(
        self, model: "Transformer", format: "Format", config: Config, draft: Draft, source: str
    ) -> None:
        self.model, self.format, self.config, self.draft, self.source = model, format, config, draft, source

    def side(self, name: str, prompts: Sequence[Ranking]) -> dict[str, Any]:
        """Write the file of one side, and say what is in it."""
        from matura.align import rollouts
        from matura.data.preferences import diversity

        config, left_out = self.config, 0
        if prompts:
            what = "held-out prompts" if name == "heldout" else "prompts"
            new = config.draw.max_new_tokens
            prompts, left_out = rollouts.fitting(prompts, self.format, self.model, new, what)
        rows: list[Ranking] = []
        ids: list[list[int]] = []
        each = max(1, config.batch // config.k)
        with progress(f"sampling {name}", len(prompts) * config.k, unit="answers") as bar:
            for start in range(0, len(prompts), each):
                group = prompts[start : start + each]
                for row, answers in zip(group, self._answers(name, start, group), strict=True):
                    said = [Answer(one["text"], end=one["end"], source=self.source) for one in answers]
                    rows.append(
                        Ranking(row.id, row.messages, tuple(said), row.group, "", row.facts, row.tools)
                    )
                    ids += [one["ids"] for one in answers]
                bar.advance(len(group) * config.k)
        write_rankings(self.draft.path / FILES[name], rows)
        ends = [one.end for row in rows for one in row.answers]
        return {
            "prompts": len(rows),
            "no_room": left_out,
            "answers": len(ends),
            "tokens": sum(map(len, ids)),
            "mean_tokens": _share(sum(map(len, ids)), len(ids)),
            "stopped": _share(ends.count("stop"), len(ends)),
            "distinct_2": round(diversity.distinct(ids), 4),
            "repeated": round(diversity.repeated([one.text for one in row.answers] for row in rows), 4),
        }

    def _answers(self, side: str, start: int, group: Sequence[Ranking]) -> list[list[dict[str, Any]]]:
        """The answers to each prompt of a group, written now or before the run was killed."""
        from matura.align import rollouts

        path = self.draft.resume / f"{side}-{start:06d}.json"
        if path.is_file():
            return list(json.loads(path.read_text(encoding="utf-8"))["answers"])
        config = self.config
        written = rollouts.roll(
            self.model, self.format, group, k=config.k, draw=config.draw, seed=config.seed, batch=config.batch
        )
        told = [{"text": one.text, "end": one.end, "ids": list(one.ids)} for one in written]
        answers = [told[i : i + config.k] for i in range(0, len(told), config.k)]
        write_json(path, {"answers": answers})
        return answers


def _chosen(rows: Sequence[Ranking], count: int | None, seed: int) -> list[Ranking]:
    """`count` rows by a hash of seed and identity, in their order: a few more rows change few of them."""
    if count is None or count >= len(rows):
        return list(rows)
    key = [hashlib.sha256(f"{seed}\n{row.id}".encode()).digest() for row in rows]
    return [rows[i] for i in sorted(sorted(range(len(rows)), key=key.__getitem__)[:count])]


def _share(part: float, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _line(k: int, told: dict[str, dict[str, Any]]) -> str:
    asked = " and ".join(
        f"{told[side]['prompts']:,} {what}"
        for side, what in (("train", "prompts"), ("heldout", "held-out prompts"))
        if told[side]["prompts"]
    )
    one = told["train"] if told["train"]["prompts"] else told["heldout"]
    return (
        f"{k} answers to each of {asked}: {one['mean_tokens']:.1f} tokens on average, {one['stopped']:.0%} ended by "
        f"themselves, distinct-2 {one['distinct_2']:.2f}"
    )
