"""Settings of an exam's panels: what is looked at besides ability. 0 items leave a panel out."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from matura.core.config import Config, Input

SECRETS = 20
"""Assumed where it is not known how many were planted."""
ASKED_BY = {
    "ifeval": "prompts",
    "robustness": "tasks",
    "toxicity": "prompts",
    "memorisation": "others",
    "needle": "lengths",
    "abstention": "pairs",
}
"""The setting of each panel without which nothing is asked."""

Change = Literal["typos", "paraphrase", "options"]


class Following(Config):
    """Instructions that a program can verify (IFEval). More prompts than there are ask all."""

    prompts: int = Field(0, ge=0, description="Prompts; there are 541")
    tokens: int = Field(512, ge=1, description="Longest answer: what is cut off counts as it is")


class Robustness(Config):
    """The same questions as they are and changed."""

    tasks: tuple[str, ...] = Field(
        (), description="Tasks whose questions are changed, such as arc_easy, mmlu"
    )
    items: int = Field(100, ge=1, description="Questions of each task")
    changes: tuple[Change, ...] = Field(
        ("typos", "paraphrase", "options"),
        description="typos: one word in ten is misspelt; paraphrase: another frame around the question; options: "
        "another order of the options that it lists",
    )
    seed: int = Field(0, description="Of the changes")


class Stereotypes(Config):
    """Social bias. More items than there are ask all."""

    crows_pairs: int = Field(0, ge=0, description="Pairs of CrowS-Pairs; there are 1,508")
    winobias: int = Field(0, ge=0, description="Pairs of WinoBias; there are 1,584")
    bbq: int = Field(0, ge=0, description="Questions of BBQ; there are 58,492 in eleven files")
    stereoset: int = Field(0, ge=0, description="Sentences of StereoSet's first part; there are 2,106")


class Toxicity(Config):
    """What is written after harmless beginnings."""

    prompts: int = Field(
        0, ge=0, description="Beginnings: of `toxicity_prompts.jsonl` in the folder, or made ones"
    )
    samples: int = Field(5, ge=1, description="Continuations of each, drawn with top-p 0.9")
    tokens: int = Field(20, ge=1, description="Tokens of each")
    score: str = Field(
        "lexicon",
        description="lexicon, learned (a classifier trained on `examples`), or module:callable (texts -> scores)",
    )
    examples: Annotated[str | None, Input("raw")] = Field(
        None, description="JSON Lines of {text, label: 0 or 1}, to learn from"
    )
    threshold: float = Field(0.5, ge=0, le=1, description="Score from which a text counts as toxic")


class Memorisation(Config):
    """Secrets that curation planted in `corpus`."""

    others: int = Field(
        0,
        ge=0,
        description="Other digits beside each secret; 255 show exposures up to 8 bits, 0 measures nothing",
    )
    controls: int = Field(5, ge=0, description="Secrets that were planted nowhere, beside them")
    trained: Annotated[str | None, Input("corpus")] = Field(
        None,
        description="The corpus that the model was trained on, where copies of `corpus` were removed or added",
    )


class Needle(Config):
    """A number hidden in a long text."""

    lengths: tuple[int, ...] = Field(
        (), description="Tokens of the prompts, such as 256, 512, 1000; none asks nothing"
    )
    depths: tuple[float, ...] = Field(
        (0.0, 0.25, 0.5, 0.75, 1.0), description="Where it is hidden, as a share of the text"
    )
    each: int = Field(5, ge=1, description="Questions of each length and depth")


class Abstention(Config):
    """Questions asked with and without the sentence that answers them."""

    pairs: int = Field(0, ge=0, description="Pairs of questions, made from templates")
    tokens: int = Field(24, ge=1, description="Longest answer that is written")


class Panels(Config):
    """What is looked at besides ability. Nothing is asked unless a panel has items."""

    ifeval: Following = Following()
    robustness: Robustness = Robustness()
    bias: Stereotypes = Stereotypes()
    toxicity: Toxicity = Toxicity()
    memorisation: Memorisation = Memorisation()
    needle: Needle = Needle()
    abstention: Abstention = Abstention()

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        for panel, items in ASKED_BY.items():
            group = getattr(self, panel)
            if not getattr(group, items) and (given := group.changed_besides(items)):
                raise ValueError(
                    f"{panel}.{given[0]} would do nothing: without {panel}.{items} nothing is asked"
                )
        return self

    @property
    def work(self) -> tuple[int, int]:
        """About how many tokens a model reads and writes for the panels; an estimate before any rows are seen."""
        asked = self.robustness
        changed = asked.items * len(asked.tasks) * (1 + len(asked.changes))
        bias, lengths = self.bias, self.needle.lengths
        needles = self.needle.each * len(self.needle.depths) + len(self.needle.depths)
        drawn = self.toxicity.prompts * self.toxicity.samples
        read = (
            50 * self.ifeval.prompts
            + 150 * changed
            + 40 * bias.crows_pairs
            + 250 * bias.winobias
            + 100 * bias.bbq
            + 45 * bias.stereoset
            + 10 * drawn
            + 12 * SECRETS * self.memorisation.others
            + 2 * needles * sum(lengths)
            + 540 * self.abstention.pairs
        )
        wrote = (
            self.ifeval.prompts * self.ifeval.tokens
            + drawn * self.toxicity.tokens
            + 12 * needles * len(lengths)
            + 2 * self.abstention.pairs * self.abstention.tokens
        )
        return read, wrote
