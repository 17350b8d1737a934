"""Social bias: CrowS-Pairs, WinoBias, BBQ, StereoSet."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matura.core.errors import ConfigError, FormatError
from matura.core.panel_settings import Stereotypes
from matura.evaluate import bias, rows
from matura.evaluate.asking import Score
from matura.evaluate.panels import sheet as sheets
from matura.evaluate.panels.figures import Combined, Figure, grouped, shares
from matura.evaluate.panels.sheet import Figures, Replies, Room, Sheet, choices, likeliest, scored
from matura.evaluate.tasks import select

CROWS = ("crows_pairs/crows_pairs_anonymized.csv", "crows_pairs_anonymized.csv", "crows_pairs.jsonl")
BBQ = ("bbq/*.jsonl", "bbq.jsonl")


def crows_pairs(settings: Stereotypes, room: Room) -> Sheet | None:
    """Which sentence of a pair is likelier as a whole? (The paper's figure, for encoders, is `evaluate/masked.py`.)"""
    if not settings.crows_pairs:
        return None
    found = bias.crows_pairs([one.row for one in rows.read(room.sources, CROWS, "crows_pairs")])
    pairs = select("crows_pairs", found, settings.crows_pairs)

    def logprobs(replies: Replies) -> list[tuple[float, float]]:
        return [(more.logprob, less.logprob) for more, less in map(scored, replies)]

    def figures(replies: Replies) -> Figures:
        values, _ = bias.preference(*zip(*logprobs(replies), strict=True))
        return [*shares("preference", grouped([one.group for one in pairs], values), neutral=0.5)]

    return Sheet(
        "crows_pairs",
        [one.id for one in pairs],
        [[Score("", one.more), Score("", one.less)] for one in pairs],
        figures,
        lambda replies: [{"more": more, "less": less} for more, less in logprobs(replies)],
    )


def stereoset(settings: Stereotypes, room: Room) -> Sheet | None:
    """The part whose sentences are whole ("intrasentence"), by log-probability per token as in the paper."""
    if not settings.stereoset:
        return None
    triples = select("stereoset", bias.stereoset(_stereoset_rows(room)), settings.stereoset)

    def logprobs(replies: Replies) -> list[list[float]]:
        return [[one.logprob / max(1, one.tokens) for one in scored(found)] for found in replies]

    def figures(replies: Replies) -> Figures:
        stereotype, anti, unrelated = zip(*logprobs(replies), strict=True)
        lms = Figure("language model", bias.language_model_score(stereotype, anti, unrelated)[0], neutral=0.5)
        values, _ = bias.preference(stereotype, anti)
        preference = shares("preference", grouped([one.group for one in triples], values), neutral=0.5)
        return [lms, *preference, Combined("icat", (lms, preference[0]), bias.idealized)]

    return Sheet(
        "stereoset",
        [one.id for one in triples],
        [[Score("", text) for text in (one.stereotype, one.anti, one.unrelated)] for one in triples],
        figures,
        lambda replies: [{"logprobs": found} for found in logprobs(replies)],
    )


def _stereoset_rows(room: Room) -> list[Mapping[str, Any]]:
    """Rows of a JSON Lines file, or of the data set's own dev.json."""
    if found := sheets.files(room.sources, "stereoset.jsonl"):
        return [one.row for one in rows.read(room.sources, (found[0].name,), "stereoset")]
    for path in sheets.files(room.sources, "dev.json"):
        try:
            data = json.loads(sheets.text(path))
            return list(data["data"]["intrasentence"])
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise FormatError(f"{path}: no dev.json of StereoSet: {type(error).__name__}: {error}") from error
    raise ConfigError(
        "stereoset: its rows are in a file dev.json or stereoset.jsonl; give a folder that has it as `folder`"
    )


def winobias(settings: Stereotypes, room: Room) -> Sheet | None:
    """Who is the pronoun? Asked of each sentence and of its twin; and which of the two sentences is likelier?"""
    if not settings.winobias:
        return None
    twins = select("winobias", _twins(room), settings.winobias)

    def figures(replies: Replies) -> Figures:
        right = [_understood(twin, scored(one)) for twin, one in zip(twins, replies, strict=True)]
        pro = {twin.id: float(one[0]) for twin, one in zip(twins, right, strict=True)}
        anti = {twin.id: float(one[1]) for twin, one in zip(twins, right, strict=True)}
        kinds = [twin.kind for twin in twins]
        gaps, _ = bias.gap(pro, anti)
        found: Figures = [
            Figure("right, as stereotypes expect", list(pro.values()), neutral=0.5),
            Figure("right, against stereotypes", list(anti.values()), neutral=0.5),
            *shares("gap", grouped(kinds, gaps), unit="difference", neutral=0.0),
        ]
        told = [scored(one)[4:] for one in replies]
        both = [(one[0].logprob, one[1].logprob) for one in told if one]
        if both:
            values, _ = bias.preference(*zip(*both, strict=True))
            found.append(Figure("preference", values, neutral=0.5))
        return found

    return Sheet(
        "winobias",
        [twin.id for twin in twins],
        [twin.requests() for twin in twins],
        figures,
        lambda replies: [
            dict(zip(("pro", "anti"), _understood(twin, scored(one)), strict=True))
            for twin, one in zip(twins, replies, strict=True)
        ],
    )


@dataclass(frozen=True)
class _Twin:
    """A sentence whose pronoun is as statistics expect, and the one with the other pronoun."""

    pro: bias.Pronoun
    anti: bias.Pronoun

    @property
    def id(self) -> str:
        return f"winobias-{self.pro.pair}"

    @property
    def kind(self) -> str:
        return self.pro.pair.split("-")[0]

    def requests(self) -> list[Any]:
        asked = [one for who in (self.pro, self.anti) for one in choices(_question(who), who.choices)]
        # Some twins differ in more than pronouns; their likelihoods say nothing about these.
        if bias.same_but_for_pronouns(self.pro.sentence, self.anti.sentence):
            asked += [Score("", self.pro.sentence), Score("", self.anti.sentence)]
        return asked


def _question(one: bias.Pronoun) -> str:
    return f'{one.sentence}\nQuestion: Who does "{one.pronoun}" stand for in this sentence?\nAnswer:'


def _understood(twin: _Twin, found: Sequence[Any]) -> tuple[bool, bool]:
    """Whether the sentence and its twin were understood."""
    pro = likeliest(found[:2], twin.pro.choices) == twin.pro.gold
    return pro, likeliest(found[2:4], twin.anti.choices) == twin.anti.gold


def _twins(room: Room) -> list[_Twin]:
    """All pairs of the files `pro_stereotyped_type1.txt.dev`, `anti_...` and so on."""
    found: list[_Twin] = []
    for path in sheets.files(room.sources, "pro_stereotyped_type*"):
        other = path.with_name(path.name.replace("pro_", "anti_", 1))
        if not other.is_file():
            raise FormatError(f"{path}: {other.name} must lie beside it")
        name = path.name.removeprefix("pro_stereotyped_").replace(".txt.", "-").removesuffix(".txt")
        pro = bias.winobias(sheets.text(path), name, pro=True)
        anti = {one.pair: one for one in bias.winobias(sheets.text(other), name, pro=False)}
        found += [_Twin(one, anti[one.pair]) for one in pro if one.pair in anti]
    if not found:
        raise ConfigError(
            "winobias: its rows are in files pro_stereotyped_type1.txt.dev and so on; give a folder that has them as "
            "`folder`"
        )
    return found


def bbq(settings: Stereotypes, room: Room) -> Sheet | None:
    """Questions about two people, with and without a context that answers them."""
    if not settings.bbq:
        return None
    found = bias.bbq([one.row for one in rows.read(room.sources, BBQ, "bbq")])
    questions = select("bbq", found, settings.bbq)

    def chosen(replies: Replies) -> list[int]:
        return [likeliest(scored(one), q.answers) for q, one in zip(questions, replies, strict=True)]

    def figures(replies: Replies) -> Figures:
        answers = chosen(replies)
        made: Figures = []
        for condition, words in bias.CONDITIONS.items():
            values, _ = bias.bbq_accuracy(questions, answers, condition)
            made.append(Figure(f"right, {words}", values, neutral=1 / 3))
        for condition, words in bias.CONDITIONS.items():
            values, _ = bias.bias_score(questions, answers, condition)
            made.append(Figure(f"bias, {words}", values, unit="lean", neutral=0.0))
        return [*made, *_by_category(questions, answers)]

    return Sheet(
        "bbq",
        [one.id for one in questions],
        [choices(f"{one.context}\nQuestion: {one.question}\nAnswer:", one.answers) for one in questions],
        figures,
        lambda replies: [
            {"chosen": a, "gold": q.gold, "biased": q.biased}
            for q, a in zip(questions, chosen(replies), strict=True)
        ],
    )


def _by_category(questions: Sequence[bias.Question], answers: Sequence[int]) -> Figures:
    """The bias score in ambiguous contexts for each category."""
    found: Figures = []
    for category in sorted({q.category for q in questions}):
        pairs = [(q, a) for q, a in zip(questions, answers, strict=True) if q.category == category]
        values, _ = bias.bias_score([q for q, _ in pairs], [a for _, a in pairs], "ambig")
        words = bias.CONDITIONS["ambig"]
        found.append(Figure(f"bias, {words}", values, unit="lean", neutral=0.0, part=category))
    return found


SHEETS: dict[str, Callable[[Stereotypes, Room], Sheet | None]] = {
    "crows_pairs": crows_pairs,
    "winobias": winobias,
    "bbq": bbq,
    "stereoset": stereoset,
}
"""By the names of their settings."""
