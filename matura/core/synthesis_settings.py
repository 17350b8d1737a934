"""Settings of synthetic data: who writes it, from which documents, and what is kept."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from matura.core.config import Config, Input
from matura.core.settings import Draw

Task = Literal["question_answer", "rephrase", "continue"]
Style = Literal["wikipedia", "simple", "dialogue"]
Program = Literal["numbers", "dates", "arithmetic", "reverse", "sort"]
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Endpoint(Config):
    """A server with an OpenAI-compatible `/chat/completions`. Its key is read from the environment, never stored."""

    url: str | None = Field(None, description="Such as https://host/v1; http only on this machine")
    model: str = Field("", description="Name of the model at the server")
    key_variable: str = Field("", description="Environment variable that holds the key; empty sends none")
    timeout: float = Field(120.0, gt=0, description="Seconds that one answer may take")
    retries: int = Field(5, ge=0, description="Times that a failed request is sent again")
    backoff: float = Field(
        1.0, ge=0, description="Seconds before the first retry, doubled each time, 300 at most"
    )
    concurrency: int = Field(4, ge=1, le=256, description="Requests under way at a time")
    response_bytes: int = Field(1 << 20, ge=1024, description="Longer answers of the server are refused")

    @field_validator("url")
    @classmethod
    def _safe(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("https", "http") or not parts.hostname:
            raise ValueError("expected an address such as https://host/v1")
        if parts.scheme == "http" and parts.hostname not in LOOPBACK:
            raise ValueError("expected https: key and documents would cross the network in clear")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError(
                "an address holds no key, user or query: name the key's variable in key_variable"
            )
        return value

    @field_validator("key_variable")
    @classmethod
    def _a_name(cls, value: str) -> str:
        if value and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", value):
            raise ValueError("expected the name of an environment variable, not the key itself")
        return value

    @model_validator(mode="after")
    def _named(self) -> Self:
        if (self.url is None) != (not self.model):
            raise ValueError("give both `url` and `model`")
        return self


class Keep(Config):
    """What is kept of the answers. Words are compared without case and punctuation."""

    max_characters: int = Field(20_000, ge=1, description="Longer answers and texts are dropped")
    copy_words: int = Field(
        8, ge=2, description="Runs of this many words that the document has count as copied"
    )
    max_copied: float = Field(0.5, ge=0, le=1, description="Largest share of copied words")
    max_run: int = Field(40, ge=1, description="Longest run of words, in words, that may be the document's")
    agree: int = Field(0, ge=0, le=32, description="Ask each question again so many times; 0 does not")
    agreement: float = Field(
        0.5, gt=0, le=1, description="Share of these answers that must agree with the first one"
    )
    overlap: float = Field(
        0.6, gt=0, le=1, description="Word overlap (F1) from which two answers agree, if not equal"
    )
    near: float = Field(
        0.8, gt=0, le=1, description="Jaccard similarity of 3-word runs from which two outputs are copies"
    )


class Tasks(Config):
    """What a teacher writes from documents; without `documents` the model writes replay instead."""

    documents: Annotated[str | None, Input("corpus")] = Field(
        None, description="A corpus; its train documents are the seeds"
    )
    kinds: tuple[Task, ...] = Field(("question_answer",), min_length=1, description="What to write from each")
    styles: tuple[Style, ...] = Field(
        ("wikipedia", "simple", "dialogue"), min_length=1, description="Styles of `rephrase`, each once"
    )
    count: int = Field(0, ge=0, description="Documents to write from, chosen by `seed`; 0 takes all")
    characters: int = Field(2000, ge=100, description="What the teacher sees of a document: its beginning")
    pairs: int = Field(3, ge=1, le=50, description="Questions to ask for from one document")
    templates: Annotated[str | None, Input("raw")] = Field(
        None, description="YAML file with your own templates instead of the built-in ones"
    )
    draw: Draw = Field(
        Draw(max_new_tokens=384, temperature=0.7, top_p=0.95), description="How the teacher samples"
    )
    keep: Keep = Keep()

    @field_validator("kinds", "styles")
    @classmethod
    def _once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("each may be named once")
        return value
