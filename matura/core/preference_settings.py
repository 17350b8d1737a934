"""Settings for preferences: how files with judged answers, or with prompts alone, are read."""

from typing import Literal

from pydantic import Field

from matura.core.config import Config

Form = Literal["auto", "rankings", "oasst", "oasst_messages", "hh", "pairs", "thumbs", "answers", "prompts"]


class PreferenceData(Config):
    """How rankings and prompts are read. All of it is for files; an artifact has its form and its sides already."""

    form: Form = Field("auto", description="What the rows of the files are; auto tells it by the columns")
    columns: dict[str, str] = Field(
        {}, description="Other names of columns: columns.prompt=question reads `question` as `prompt`"
    )
    facts: tuple[str, ...] = Field((), description="Further columns that are kept for reward functions")
    bad_rows: Literal["error", "drop"] = Field(
        "error", description="A row that is no preference: stop and name it, or leave it out and count it"
    )
    heldout: int = Field(
        100,
        ge=0,
        description="Rankings of the files held out by groups of one prompt, at most a third",
    )


FOR_FILES = ("form", "columns", "facts", "bad_rows")
"""Settings that do nothing for an artifact."""


def check_without_facts(data: PreferenceData) -> None:
    """Raises ValueError for facts that were asked for where nothing of these files is rewarded."""
    if data.facts:
        raise ValueError("data.facts would do nothing: facts are for rewards, and none read these files")
