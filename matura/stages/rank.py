"""Judge samples: by rewards, by what people ranked, or by both; and say what is worth learning from.

Who ranked a prompt decides about it; rewards decide about the rest. The rankings serve fine-tuning on the best answers,
DPO and reward models alike. With `gate`, held-out answers are compared with those of the round before, by the same
judge.
"""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from matura.core import config, costs
from matura.core.artifact import Artifact, Draft, RawInput
from matura.core.config import Input
from matura.core.errors import MaturaError
from matura.core.files import canonical_hash, write_json
from matura.core.inputs import located
from matura.core.metrics import progress
from matura.core.plan import Estimate
from matura.core.preference_settings import PreferenceData, check_without_facts
from matura.core.preferences import HELDOUT, SAMPLES, TRAIN, Ranking, read_rankings, write_rankings
from matura.core.reward_settings import Rewards

if TYPE_CHECKING:
    from matura.align.judging import Count
    from matura.align.rewards import Weighted
    from matura.core.workspace import Workspace
    from matura.data.preferences.matching import Matched

KIND = "preferences"
VERSION = 1
SHOWN = 20
"""Prompts of people's rankings that are named when they are unknown."""


class Keep(config.Config):
    """Which prompts are learned from: those whose best answer is good enough. Held-out prompts all stay."""

    least: float | None = Field(None, description="Least score of the best answer")
    above_previous: bool = Field(
        False, description="The best answer must score more than the mean of the round before (`previous`)"
    )
    margin: float = Field(0.0, ge=0, description="Least difference between the best and the worst score")
    fewest: int = Field(
        1, ge=1, description="Prompts that must be left; fewer would be learned by heart, and are an error"
    )


class Gate(config.Config):
    """Whether held-out answers score as they should beside those of the round before."""

    fail_on: Literal["regressed", "not unchanged", "not improved"] | None = Field(
        None, description="The verdict that fails it; none: no gate, the verdict is only told"
    )
    margin: float = Field(0.05, ge=0, description="Loss of mean score that still counts as unchanged")


TAKEN_BACK = ("rewards", "gate")
"""Groups that null takes back where a recipe has them."""


def _may_be_null(schema: dict[str, Any]) -> None:
    """So the schema for editors says too."""
    for name in TAKEN_BACK:
        group = schema["properties"][name]
        group["anyOf"] = [{"$ref": group.pop("$ref")}, {"type": "null"}]


class Config(config.Config):
    """What is judged, by whom, and what is kept of it."""

    model_config = ConfigDict(json_schema_extra=_may_be_null)

    samples: Annotated[str, Input("samples")] = Field(description="What `matura sample` wrote")
    rewards: Rewards = Rewards()
    ranks: Annotated[str | None, Input("raw", "preferences")] = Field(
        None,
        description="What people ranked: what `matura rank` saved, or files of rankings of the same answers",
    )
    data: PreferenceData = Field(PreferenceData(), description="How the files of people are read")
    previous: Annotated[str | None, Input("preferences")] = Field(
        None, description="The same of the round before, judged again by today's rewards to compare with"
    )
    keep: Keep = Keep()
    gate: Gate = Gate()
    seed: int = Field(0, ge=0, description="Of the gate's bootstrap")

    @field_validator(*TAKEN_BACK, mode="before")
    @classmethod
    def _null(cls, value: Any) -> Any:
        return {} if value is None else value

    @model_validator(mode="after")
    def _somebody_judges(self) -> Self:
        rewarded = any(self.rewards.weights.values())
        if not rewarded and self.ranks is None:
            raise ValueError(
                "nobody judges: give `rewards` with a weight, such as rewards.exact.weight=1, or `ranks`"
            )
        if self.ranks is None and self.data != PreferenceData():
            raise ValueError("`data` is for files of people: give `ranks`")
        check_without_facts(self.data)
        compares = self.gate.fail_on is not None or self.keep.above_previous
        if compares and self.previous is None:
            raise ValueError("gate and keep.above_previous compare with the round before: give `previous`")
        if not rewarded and (self.previous is not None or self.keep != Keep(fewest=self.keep.fewest)):
            raise ValueError("people's ranks have no scores to compare: `keep` and `previous` need `rewards`")
        if self.gate != Gate() and not self.compared:
            raise ValueError(
                "gate.margin would do nothing: give gate.fail_on, or `previous` to be told the verdict"
            )
        return self

    @property
    def compared(self) -> bool:
        """Whether held-out answers are compared with those of `previous`: for a gate, or where it has no other use."""
        return self.previous is not None and (self.gate.fail_on is not None or not self.keep.above_previous)


def raw_input(config: Config, setting: str, workspace: "Workspace | None" = None) -> Path | RawInput:
    """Where files of one's own are. People's ranks may not be there yet: the answers are written first."""
    path = located(config, setting, workspace)
    if setting == "ranks" and not path.exists():
        return RawInput(path, canonical_hash([]), {})
    return path


def estimate(config: Config, inputs: dict[str, Artifact | RawInput | None]) -> Estimate:
    """Time from the answers to judge: a reward model reads them, functions take next to none."""
    samples = inputs.get("samples")
    told = samples.summary if isinstance(samples, Artifact) else {}
    tokens = sum(told.get(side, {}).get("tokens", 0) for side in ("train", "heldout"))
    times = 1 if config.previous is None else 2
    model = config.rewards.judge.model is not None
    return Estimate(
        seconds=1 + (times * tokens / costs.READ if model else 0), disk_bytes=2 * costs.row_bytes(samples, 0)
    )


def run(config: Config, inputs: dict[str, Artifact | RawInput], draft: Draft) -> Artifact:
    """Make train.jsonl, heldout.jsonl and report.json.

    Raises MaturaError when nothing was judged, nothing of it is to be kept, or a gate has nothing to compare.
    """
    from matura.align import judging
    from matura.data.preferences import selection

    samples = inputs["samples"]
    assert isinstance(samples, Artifact)
    given = {side: list(read_rankings(samples.file(name))) for side, name in _SIDES.items()}
    people = _people(config, inputs, samples, given)
    rows = given if people is None else people[0]
    rewards, count = _rewards(config, inputs), _count(samples)
    means: dict[str, dict[str, float]] = {side: {} for side in rows}
    if rewards is not None:
        for side in rows:
            rows[side], means[side] = _scored(rewards, rows[side], count, side)
    before = _before(config, inputs, rewards, count)
    demands = selection.Demands(config.keep.least, _above(config, before), config.keep.margin)
    train, dropped = selection.select(rows["train"], demands)
    heldout, _ = selection.select(rows["heldout"], selection.Demands())
    if len(train) < config.keep.fewest and (rows["train"] or not heldout):
        why = ", ".join(f"{n:,} {reason}" for reason, n in sorted(dropped.items())) or "no prompts"
        left = f"only {len(train):,} prompts are" if train else "nothing is"
        raise MaturaError(f"{left} left to learn from: {why}; see `keep`, or rank more prompts")
    write_rankings(draft.path / TRAIN, train)
    write_rankings(draft.path / HELDOUT, heldout)
    summary: dict[str, Any] = {
        "train": judging.told(rows["train"])
        | means["train"]
        | {"kept": len(train), "dropped": dict(sorted(dropped.items()))},
        "kept": judging.told(train),
        "heldout": judging.told(heldout) | means["heldout"],
    }
    if people is not None:
        summary["people"] = people[1]
    if before is not None and config.compared:
        summary |= _verdict(config, before["heldout"], heldout)
    summary = {"line": _line(summary), **summary}
    write_json(draft.path / "report.json", summary)
    return draft.commit(summary)


_SIDES = {"train": SAMPLES, "heldout": HELDOUT}
_JUDGED = {"train": TRAIN, "heldout": HELDOUT}
Sides = dict[str, list[Ranking]]


def _people(
    config: Config, inputs: dict[str, Artifact | RawInput], samples: Artifact, given: Sides
) -> tuple[Sides, dict[str, Any]] | None:
    """Both sides with people's ranks, and what came of them; None where no person ranked."""
    from matura.data.preferences import loading, matching

    if (source := inputs.get("ranks")) is None:
        return None
    if not source.path.exists():
        command = shlex.join(["matura", "rank", str(samples.path), "--out", str(source.path)])
        raise MaturaError(
            f"nobody has ranked these answers yet. Rank them, then run this again:\n  {command}\n"
            "With --web it is a page in the browser. Everything made so far is kept."
        )
    loaded = loading.load(source, config.data)
    views = [*loaded.train, *loaded.heldout]
    both = matching.match([row for side in given.values() for row in side], views)
    if not both.ranked:
        raise MaturaError(
            f"{config.ranks} ranks none of these answers: {_unmatched(both)}. Rank the samples themselves: "
            f"matura rank {samples.path}"
        )
    first = len(given["train"])
    told = {
        "ranked_prompts": both.ranked,
        "rankings": len(views),
        "annotators": list(both.annotators),
        "unknown_prompts": len(both.unknown_prompts),
        "unknown_prompts_shown": list(both.unknown_prompts[:SHOWN]),
        "unknown_answers": both.unknown_answers,
        "bad_rows": len(loaded.bad),
    }
    return {"train": list(both.rows[:first]), "heldout": list(both.rows[first:])}, told


def _unmatched(found: "Matched") -> str:
    return f"{len(found.unknown_prompts):,} prompts and {found.unknown_answers:,} answers are others"


def _rewards(config: Config, inputs: dict[str, Artifact | RawInput]) -> "Weighted | None":
    from matura.align import rewards

    return rewards.build(config.rewards, inputs) if config.rewards.weights else None


def _count(samples: Artifact) -> "Count":
    """Counts tokens as the model that wrote the samples does, with the stop token where the answer ended by itself."""
    from matura.tokenizer import conversation

    tokenizer = conversation.load(samples.input("model").path).tokenizer
    return lambda text, end: len(tokenizer.encode(text)) + (end == "stop")


def _scored(
    rewards: "Weighted", rows: list[Ranking], count: "Count", what: str
) -> tuple[list[Ranking], dict[str, float]]:
    """The rows with scores; ranks follow from them where no person ranked."""
    from dataclasses import replace

    from matura.align import judging
    from matura.data.preferences import selection

    with progress(f"judging {what}", sum(len(row.answers) for row in rows), unit="answers") as bar:
        found, means = judging.scores(rewards, rows, count, bar.advance)
    made = []
    for row, scores in zip(rows, found, strict=True):
        new = selection.ranked(row, scores)
        if any(one.rank is not None for one in row.answers):
            kept = [replace(one, rank=old.rank) for one, old in zip(new.answers, row.answers, strict=True)]
            new = replace(new, answers=tuple(kept))
        made.append(new)
    return made, means


def _before(
    config: Config, inputs: dict[str, Artifact | RawInput], rewards: "Weighted | None", count: "Count"
) -> Sides | None:
    """The round before, as today's rewards judge it: rewards may have changed since."""
    earlier = inputs.get("previous")
    if earlier is None or rewards is None:
        return None
    assert isinstance(earlier, Artifact)
    needed = ["heldout"] if config.compared else []
    needed += ["train"] if config.keep.above_previous else []
    found: Sides = {}
    for side in needed:
        rows = list(read_rankings(earlier.file(_JUDGED[side])))
        found[side], _ = _scored(rewards, rows, count, f"{side} of the round before")
    return found


def _above(config: Config, before: Sides | None) -> float | None:
    """The mean score of the round before, where the best answers must exceed it."""
    if before is None or not config.keep.above_previous:
        return None
    known = [one.score for row in before["train"] for one in row.answers if one.score is not None]
    return sum(known) / len(known) if known else None


def _verdict(config: Config, before: list[Ranking], now: list[Ranking]) -> dict[str, Any]:
    """The score beside that of the round before and, where there is a gate, whether it passes."""
    from matura.align import judging

    verdict, reasons = judging.compare(
        before, now, fail_on=config.gate.fail_on, margin=config.gate.margin, seed=config.seed
    )
    gate = {"gate": {"passed": not reasons, "reasons": reasons}} if config.gate.fail_on else {}
    return {"score": verdict.as_dict()} | gate


def _line(summary: dict[str, Any]) -> str:
    train, heldout = summary["train"], summary["heldout"]
    side = train if train["prompts"] else heldout
    line = f"{side['prompts']:,} prompts judged"
    if train["prompts"]:
        line += f", {train['kept']:,} kept"
    if "mean" in side:
        line += f": mean {side['mean']:.3f}, best of each {side['best']:.3f}"
    if train["prompts"] and "mean" in heldout:
        line += f"; held out {heldout['mean']:.3f}"
    if "people" in summary:
        told = summary["people"]
        line += f"; people ranked {told['ranked_prompts']:,}"
        if lost := told["unknown_prompts"] + told["unknown_answers"]:
            line += f" ({lost:,} of their prompts and answers are not among the samples)"
    if "score" in summary:
        one = summary["score"]
        line += f"; {one['verdict']} ({one['gain']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}])"
    return line
