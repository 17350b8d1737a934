"""What a reward model is worth on held-out pairs, beside what it has to beat on the same pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from matura.align import baselines
from matura.align.ranked import read, write_for
from matura.align.reward_measures import (
    Margins,
    accuracy,
    ahead,
    calibration,
    length_correlation,
    margins,
)
from matura.align.reward_model import Judge
from matura.align.sequences import Prompted
from matura.core.preferences import Pair, Ranking
from matura.data.preferences import pairs, sides
from matura.model.transformer import Transformer
from matura.tokenizer.conversation import Format


@dataclass(frozen=True)
class Held:
    """Held-out pairs, what hangs together of them, and the texts [R] that a model reads for them. `at` says of every
    pair which text it is in, and which answers there are the chosen and the rejected one."""

    pairs: tuple[Pair, ...]
    groups: tuple[str, ...]
    texts: tuple[Prompted, ...]
    at: tuple[tuple[int, int, int], ...]

    def judged(self, judge: Judge) -> Margins:
        """What a reward model makes of them."""
        found = judge.rewards(self.texts)
        return self.of([found[text][chosen] - found[text][rejected] for text, chosen, rejected in self.at])

    def of(self, values: Sequence[float]) -> Margins:
        """Margins of the pairs by any rule."""
        return margins(values, [pair.weight for pair in self.pairs], self.groups)


def held(rankings: Sequence[Ranking], model: Transformer, format: Format, length: int) -> Held:
    """The pairs of held-out rankings in which both answers, with the prompt, have at most `length` tokens."""
    write = write_for(model)
    kept: list[Pair] = []
    groups: list[str] = []
    texts: list[Prompted] = []
    at: list[tuple[int, int, int]] = []
    for ranking, group in zip(rankings, sides.groups(rankings), strict=True):
        its = pairs.of(ranking)
        answers = list(dict.fromkeys(one for pair in its for one in (pair.chosen, pair.rejected)))
        whole = read(write, format, ranking, answers)
        room = length - len(whole.prompt)
        fitting = [i for i, ids in enumerate(whole.answers) if len(ids) <= room]
        number = {answers[i]: n for n, i in enumerate(fitting)}
        mine = [pair for pair in its if pair.chosen in number and pair.rejected in number]
        if mine:
            kept += mine
            groups += [group] * len(mine)
            at += [(len(texts), number[pair.chosen], number[pair.rejected]) for pair in mine]
            texts.append(Prompted(whole.prompt, tuple(whole.answers[i] for i in fitting)))
    return Held(tuple(kept), tuple(groups), tuple(texts), tuple(at))


def worth(judge: Judge, found: Held, train: Sequence[Ranking]) -> dict[str, Any]:
    """Figures for a summary; empty where nothing is held out.

    `accuracy` with its interval, `calibration`, and `baselines`: the rules of length, and the word model fitted on
    `train`. `ahead` is by how much the reward model's accuracy is above a baseline's, on the same draws of groups.
    """
    own = found.judged(judge)
    share, curve = accuracy(own), calibration(own)
    if share is None or curve is None:
        return {}
    groups = sides.groups(train)
    learned = [(pair, group) for row, group in zip(train, groups, strict=True) for pair in pairs.of(row)]
    words = baselines.fit([pair for pair, _ in learned], [group for _, group in learned])
    longer = baselines.longer(found.pairs)
    others = {
        "longer": found.of(longer),
        "shorter": found.of(baselines.shorter(found.pairs)),
        "words": found.of(words.margins(found.pairs)),
    }
    return {
        "accuracy": asdict(share),
        "calibration": curve.as_json(),
        "length_correlation": length_correlation(own, longer),
        "baselines": {
            name: {"accuracy": asdict(accuracy(one) or share), "ahead": asdict(ahead(own, one))}
            for name, one in others.items()
        },
    }
