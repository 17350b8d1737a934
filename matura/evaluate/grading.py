"""From a model's replies to marks: what every metric makes of one item, and of all of them.

A metric gives each item a value and a weight; the figure of a task is sum(values) / sum(weights), so an accuracy has
weights of one and bits per byte have the bytes. Names and conventions are those of lm-evaluation-harness: `acc` by
log-probability, `acc_norm` by log-probability per character of the choice, `acc_bytes` per byte, of equal choices the
first.

To add a metric, write a function (task, item, replies) -> Mark and enter it in `METRICS`.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from matura.core.errors import ConfigError
from matura.evaluate import patterns
from matura.evaluate.asking import Reply, Request, Roll, Score, Scored, Write
from matura.evaluate.score import Bits
from matura.evaluate.spec import Extract, Kind, Task
from matura.evaluate.tasks import Item

Replies = Sequence[Reply]
Unit = Literal["share", "bits", "perplexity"]


@dataclass(frozen=True, slots=True)
class Mark:
    """What one item counts: `value` of a possible `weight`."""

    value: float
    weight: float = 1.0


@dataclass(frozen=True)
class Metric:
    """A way to mark. `unit` "perplexity" means that the figure is exp of the ratio; such figures are shown and not
    compared, for bits per byte compare the same thing."""

    name: str
    kinds: tuple[Kind, ...]
    unit: Unit
    mark: Callable[[Task, Item, Replies], Mark]

    @property
    def better(self) -> Literal["lower", "higher"]:
        return "higher" if self.unit == "share" else "lower"


def requests(task: Task, item: Item) -> list[Request]:
    """What a model is asked for one item. The replies to it are what metrics read."""
    contexts = item.contexts or (item.context,) * len(item.choices)
    match task.kind:
        case "text":
            return [Roll(item.context)]
        case "choices":
            return [
                Score(context, item.delimiter + choice)
                for context, choice in zip(contexts, item.choices, strict=True)
            ]
        case "continuation":
            return [Score(item.context, item.delimiter + item.choices[0])]
        case "writing":
            gold = Score(item.context, item.delimiter + item.choices[0])
            write = Write(item.context, task.until, task.max_tokens)
            return [write, *([gold] if "gold_bpb" in task.marked_by else [])]


def metrics(task: Task) -> list[Metric]:
    """The metrics of a task; one that looks at what is written has one form for each way to find the answer.

    Raises ConfigError for one that there is not, or that is not for this kind of task.
    """
    found: list[Metric] = []
    for name in task.marked_by:
        if name not in METRICS:
            near = difflib.get_close_matches(name, METRICS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(METRICS)}."
            raise ConfigError(f"{task.name}: there is no metric {name!r}; {hint}")
        metric = METRICS[name]
        if task.kind not in metric.kinds:
            raise ConfigError(f"{task.name}: the metric {name} is not for kind={task.kind}")
        if metric.name == "exact_match" and task.extract:
            found += [_exact_match(f"exact_match.{one.name}", one) for one in task.extract]
        else:
            found.append(metric)
    return found


def _scored(replies: Replies) -> list[Scored]:
    return [one for one in replies if isinstance(one, Scored)]


def _best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda i: values[i])


def _right(item: Item, choice: int) -> Mark:
    return Mark(float(choice in (item.right or (item.gold,))))


def _acc(task: Task, item: Item, replies: Replies) -> Mark:
    scored = _scored(replies)
    if task.kind == "continuation":
        return Mark(float(scored[0].greedy))
    return _right(item, _best([one.logprob for one in scored]))


def _acc_norm(task: Task, item: Item, replies: Replies) -> Mark:
    pairs = zip(_scored(replies), item.choices, strict=True)
    return _right(item, _best([one.logprob / max(1, len(choice)) for one, choice in pairs]))


def _acc_bytes(task: Task, item: Item, replies: Replies) -> Mark:
    pairs = zip(_scored(replies), item.choices, strict=True)
    return _right(item, _best([one.logprob / max(1, len(choice.encode())) for one, choice in pairs]))


def _mc2(task: Task, item: Item, replies: Replies) -> Mark:
    """Share of the choices' probability that the right ones hold (Lin et al. 2022)."""
    scored = _scored(replies)
    largest = max(one.logprob for one in scored)
    mass = [math.exp(one.logprob - largest) for one in scored]
    return Mark(sum(mass[i] for i in item.right or (item.gold,)) / sum(mass))


def _gold_bpb(task: Task, item: Item, replies: Replies) -> Mark:
    """Bits of the right answer, over its bytes with the delimiter."""
    scored = _scored(replies)
    gold = scored[item.gold if task.kind == "choices" else 0]
    return Mark(-gold.logprob / math.log(2), gold.bytes)


def _perplexity(task: Task, item: Item, replies: Replies) -> Mark:
    """Of the whole continuation, an item each: exp(mean of -log p), as LAMBADA's is counted."""
    return Mark(-_scored(replies)[0].logprob)


def _bpb(task: Task, item: Item, replies: Replies) -> Mark:
    bits = cast(Bits, replies[0])
    return Mark(bits.bits, max(1, bits.bytes))


def _word_perplexity(task: Task, item: Item, replies: Replies) -> Mark:
    """By words as white space separates them; compares models of any vocabulary."""
    bits = cast(Bits, replies[0])
    return Mark(bits.bits * math.log(2), max(1, len(re.split(r"\s+", item.context))))


def _byte_perplexity(task: Task, item: Item, replies: Replies) -> Mark:
    bits = cast(Bits, replies[0])
    return Mark(bits.bits * math.log(2), max(1, bits.bytes))


def _exact_match(name: str, extract: Extract | None) -> Metric:
    """Whether the answer found in what was written is one of the right ones."""

    def mark(task: Task, item: Item, replies: Replies) -> Mark:
        written = next(one for one in replies if isinstance(one, str))
        found = extracted(extract, written) if extract else written
        said = None if found is None else _comparable(task, found)
        return Mark(float(said is not None and said in {_comparable(task, one) for one in item.choices}))

    return Metric(name, ("writing",), "share", mark)


def extracted(extract: Extract, written: str) -> str | None:
    """The answer in a text: of the match that counts, the first group that matched; None without a match.

    Raises ConfigError for a pattern that takes too long.
    """
    found = patterns.find(extract.pattern, written)
    if not found or not -len(found) <= extract.which < len(found):
        return None
    match = found[extract.which]
    groups = [group for group in match.groups() if group]
    return (groups[0] if groups else "" if match.groups() else match[0]).strip()


def _comparable(task: Task, text: str) -> str:
    """A text as it is compared: what is to be ignored cut out, white space around it too."""
    for pattern in task.ignore:
        text = patterns.cut(pattern, text)
    return (text.lower() if task.ignore_case else text).strip()


METRICS: dict[str, Metric] = {
    one.name: one
    for one in (
        Metric("acc", ("choices", "continuation"), "share", _acc),
        Metric("acc_norm", ("choices",), "share", _acc_norm),
        Metric("acc_bytes", ("choices",), "share", _acc_bytes),
        Metric("mc2", ("choices",), "share", _mc2),
        Metric("gold_bpb", ("choices", "continuation", "writing"), "bits", _gold_bpb),
        Metric("perplexity", ("continuation",), "perplexity", _perplexity),
        Metric("bpb", ("text",), "bits", _bpb),
        Metric("word_perplexity", ("text",), "perplexity", _word_perplexity),
        Metric("byte_perplexity", ("text",), "perplexity", _byte_perplexity),
        _exact_match("exact_match", None),
    )
}


def chance(task: Task, items: Sequence[Item]) -> float | None:
    """What guessing scores: the specification's, or the mean over the items' choices; None where it means nothing."""
    if task.chance is not None:
        return task.chance
    if task.kind != "choices":
        return None
    return sum(item.chance for item in items) / len(items)
