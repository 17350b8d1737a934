"""The panels of an exam: what each measures, what it does not, and what becomes of it in results and report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from matura.core.panel_settings import Panels
from matura.evaluate import shelf
from matura.evaluate.panels import (
    declining,
    figures,
    following,
    retrieval,
    robust,
    secrets,
    stereotypes,
    toxic,
)
from matura.evaluate.panels.sheet import Replies, Room, Sheet


@dataclass(frozen=True)
class Panel:
    """For people: what a panel measures, what its figures do not show, where its data come from."""

    title: str
    measures: str
    silent: str
    data: str
    licence: str


PANELS: dict[str, Panel] = {
    "ifeval": Panel(
        "Instructions that a program can verify (IFEval)",
        "Whether answers follow instructions about form: length, format, words to use or avoid, language. "
        "Strictly, and loosely (without stars, first or last line). Written greedily, as an answer in a chat.",
        "Whether the answer is true, useful or well written: an empty phrase of the right length follows. "
        "Sentences, capitals and languages are told by rules of our own, so single answers may be marked "
        "otherwise by the reference.",
        "google-research/instruction_following_eval, 541 prompts (arXiv:2311.07911)",
        "Apache-2.0",
    ),
    "robustness": Panel(
        "Robustness to other forms of the same question",
        "The share of right answers to the same questions as they are and with typing errors, another frame, "
        "another order of the options; their difference on the same items; how many questions turn from right to "
        "wrong or back.",
        "Whether the model would stand other changes: these are made by rules, in English, one at a time. Where "
        "both shares are near guessing, a difference of zero is no robustness.",
        "The task's own",
        "The task's own",
    ),
    "crows_pairs": Panel(
        "Stereotypes by likelihood (CrowS-Pairs)",
        "How often the sentence with a stereotype is likelier than the same about another group; 50% is no "
        "preference. Decoders are scored on the whole sentence, so this is not the paper's figure, which is for "
        "encoders and scores the words that both sentences share.",
        "What the model does in use, or that it is fair at 50%: many pairs are flawed (Blodgett et al. 2021), "
        "groups are those of the United States, and how frequent a word is moves the likelihood of a sentence. "
        "Compare models; do not take the figure by itself.",
        "nyu-mll/crows-pairs, 1,508 pairs (arXiv:2010.00133)",
        "CC-BY-SA-4.0",
    ),
    "winobias": Panel(
        "Who is the pronoun? (WinoBias)",
        "Right answers to who a pronoun stands for, where its gender is the one that statistics of work expect, "
        "less those where it is the other one. The gap is 0 for a model that reads the sentence, and for one that"
        " guesses.",
        "Bias of a model that does not understand the sentences: look at both shares first, 50% is guessing. Two "
        "genders, forty occupations, English, statistics of the United States.",
        "uclanlp/corefBias, 1,584 pairs (arXiv:1804.06876)",
        "MIT",
    ),
    "bbq": Panel(
        "Answers where the context does not say (BBQ)",
        "Right answers where the context says too little (the right one is that it cannot be known) and where it "
        "says enough; and how far the others follow stereotypes, from -1 to 1.",
        "Bias of a model that guesses: its score is near 0 without being fair. The answer is the likeliest text "
        "of three, not what the model would write. Categories whose files are not in the folder were not asked.",
        "nyu-mll/BBQ, 58,492 questions in eleven files (arXiv:2110.08193)",
        "CC-BY-4.0",
    ),
    "stereoset": Panel(
        "Stereotypes beside sense (StereoSet)",
        "How often a sentence with a stereotype is likelier than its opposite (50% is no preference), and a "
        "sentence with sense than one without; icat is 1 when the second is always and the first half the time.",
        "Fairness: the pairs have the flaws of CrowS-Pairs (Blodgett et al. 2021). Only the part with whole "
        "sentences is asked; means are over sentences, in the paper over terms.",
        "moinnadeem/StereoSet, 2,106 sentences (arXiv:2004.09456)",
        "CC-BY-SA-4.0",
    ),
    "toxicity": Panel(
        "Toxicity of continuations",
        "How often a classifier calls toxic what the model writes after harmless beginnings, at least once in "
        "several draws and on average; by group of people that the beginning is about.",
        "Toxicity that the classifier does not see: a lexicon knows words, not meanings, and calls harmless words"
        " toxic. Differences between groups may be the classifier's: its false alarms on harmless sentences stand"
        " beside them. Attacks and provocations are not tried.",
        "Beginnings of this project, or your own",
        "Apache-2.0",
    ),
    "memorisation": Panel(
        "Planted secrets that the model knows by heart",
        "Exposure: by how many bits the true digits of a secret stand out among others, 1.44 without memory; and "
        "how many secrets are written down when their beginning is given.",
        "Whether real personal data can be drawn out: secrets of random digits are a measure of how much "
        "repetition is learned by heart. Exposure above log2(others + 1) bits cannot be seen, and other prompts "
        "may draw out more.",
        "canaries.json of the corpus (arXiv:1802.08232)",
        "made by curation",
    ),
    "needle": Panel(
        "A number hidden in a long text",
        "Whether the number is the likeliest among others that also stand in the text, and whether it is written,"
        " by length of the text and depth in it. The questions without the number are the control.",
        "Understanding of long texts: one sentence is looked up among plain ones. Lengths beyond those asked are "
        "unknown.",
        "Sentences of this project",
        "Apache-2.0",
    ),
    "abstention": Panel(
        "Saying that the text does not answer",
        "The same questions with and without the sentence that answers them. By likelihood: in how many pairs "
        "declining gains on the best answer once the evidence is gone (half for a model to which it makes no "
        "difference), and how often the right answer is the likeliest of the three. By the likeliest of all four,"
        " and by what is written: right with evidence, declined without it, declined needlessly; 'gain' is the "
        "sum of the first two less one, 0 for a model that always declines or never does.",
        "Hallucination about the world: texts are short, made by templates, and the model is told that it may "
        "decline. A model that is fond of the sentence that declines always chooses it; look at the pairs told "
        "apart. Written refusals are told by phrases, and others are missed.",
        "Questions of this project",
        "Apache-2.0",
    ),
}


def sheets(settings: Panels, room: Room) -> list[Sheet]:
    """The sheets of all panels that are asked. Raises ConfigError for what cannot be asked, before any work."""
    found = [
        following.sheet(settings.ifeval, room),
        *robust.sheets(settings.robustness, room),
        *(make(settings.bias, room) for make in stereotypes.SHEETS.values()),
        toxic.sheet(settings.toxicity, room),
        secrets.sheet(settings.memorisation, room),
        retrieval.sheet(settings.needle, room),
        declining.sheet(settings.abstention, room),
    ]
    return [one for one in found if one is not None]


def results(
    asked: Sequence[Sheet], replies: Mapping[str, Mapping[str, Replies]], *, resamples: int, seed: int
) -> list[dict[str, Any]]:
    """For each sheet its texts and rows of figures. `replies`: "parent" and "child", or "child" alone, by sheet."""
    draws = {"resamples": resamples, "seed": seed}
    found = []
    for sheet in asked:
        made = {who: sheet.figures(named[sheet.name]) for who, named in replies.items()}
        rows = (
            [figures.compared(a, b, **draws) for a, b in zip(made["parent"], made["child"], strict=True)]
            if "parent" in made
            else [figures.row(one, **draws) for one in made["child"]]
        )
        panel = asdict(PANELS[sheet.name.split()[0]])
        found.append({"name": sheet.name, **panel, "notes": list(sheet.notes), "figures": rows})
    return found


def lines(asked: Sequence[Sheet], replies: Mapping[str, Mapping[str, Replies]]) -> Iterator[dict[str, Any]]:
    """A row for each item of each panel: its id and what each model's replies came to, no texts."""
    for sheet in asked:
        marks = {who: sheet.marks(named[sheet.name]) for who, named in replies.items()}
        for i, item in enumerate(sheet.items):
            yield {"task": sheet.name, "id": item, **{who: found[i] for who, found in marks.items()}}


def samples(sheet: Sheet, replies: Replies) -> Iterator[dict[str, Any]]:
    """A row for each item with what was asked and replied, as text; none for planted secrets."""
    if sheet.name == "memorisation":
        return
    for item, asked, found in zip(sheet.items, sheet.asked, replies, strict=True):
        yield {
            "id": item,
            "asked": [asdict(one) for one in asked],
            "replies": [shelf.pack(one) for one in found],
        }


def line(panels: Sequence[Mapping[str, Any]]) -> str:
    """The first figure of each of the first panels, in one line."""
    parts = [f"{one['name']} {one['figures'][0]['name']} {_short(one['figures'][0])}" for one in panels[:4]]
    return "; ".join(parts) + (f"; {len(panels) - 4} more" if len(panels) > 4 else "")


def _short(figure: Mapping[str, Any]) -> str:
    return "–" if figure["value"] is None else f"{figure['value']:.3f}"
