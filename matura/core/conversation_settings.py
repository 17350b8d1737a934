"""Settings for conversations: how files of people are read, and what of a conversation is learned."""

from typing import Literal

from pydantic import Field

from matura.core.config import Config

Form = Literal["auto", "messages", "sharegpt", "alpaca", "prompt", "text"]
Turns = Literal["all", "last"]
Truncation = Literal["keep_start", "drop"]


class ConversationData(Config):
    """How conversations are read and cut. The first four are for files; an artifact has its form already."""

    form: Form = Field("auto", description="What the rows of the files are; auto tells it by the columns")
    columns: dict[str, str] = Field(
        {}, description="Other names of columns: columns.prompt=question reads `question` as `prompt`"
    )
    bad_rows: Literal["error", "drop"] = Field(
        "error", description="A row that is no conversation: stop and name it, or leave it out and count it"
    )
    heldout: int = Field(100, ge=0, description="Rows of the files held out for the meter, at most a third")
    turns: Turns = Field("all", description="Answers that are trained: all, or the last one of each row")
    truncation: Truncation = Field(
        "keep_start", description="A row over `sequence` tokens: keep its beginning, or drop it"
    )


FOR_FILES = ("form", "columns", "bad_rows", "heldout")
"""Settings that do nothing for an artifact."""
