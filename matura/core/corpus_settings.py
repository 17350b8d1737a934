"""Settings of curation, in groups: where text comes from, and what every step does with it."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from matura.core.config import Config, Input

OnOff = Literal["on", "off"]
Filter = Literal["gopher", "repetition", "c4", "fineweb", "quality", "toxicity"]
"""Filters whose settings may differ by language."""


class Source(Config):
    """Where documents come from. The kind is told from path and suffixes unless it is given."""

    path: Annotated[str | None, Input("raw")] = Field(
        None,
        description="Folder, file, wheel:..., s3://... or https://... path, hf:dataset, or a database URL with `query`",
    )
    made: Annotated[str | None, Input("conversations", "corpus")] = Field(
        None, description="An artifact instead: what `synthesize` wrote, or another corpus"
    )
    kind: Literal["auto", "documents", "warc", "wikipedia", "code", "table", "sql"] = "auto"
    include: tuple[str, ...] = Field((), description="Globs of what to read, such as *.md; empty means all")
    exclude: tuple[str, ...] = Field((), description="Globs of what to leave out")
    text: str = Field("text", description="Column that holds the text (tables, SQL, datasets)")
    query: str | None = Field(None, description="SELECT statement (SQL)")
    license: str = Field("", description="Licence of documents that do not name their own")
    weight: float = Field(
        1.0, gt=0, description="Share in the mixture, relative to the other sources' weights"
    )


class Engine(Config):
    """What runs the steps."""

    kind: Literal["native", "ray"] = Field("native", description="This machine, or a Ray cluster")
    address: str | None = Field(None, description="Address of a Ray cluster; None starts one on this machine")
    workers: int = Field(0, ge=0, description="Worker processes; 0: one for each core")
    part_bytes: int = Field(32 << 20, ge=1 << 16, description="Text that one task reads")


class Limits(Config):
    """Bounds on files from outside."""

    file_bytes: int = Field(
        50 << 20,
        ge=1,
        description="Larger files (unpacked) are passed over; archives and tables may be larger",
    )
    document_bytes: int = Field(10 << 20, ge=1, description="Larger documents are passed over")
    expansion: float = Field(
        200.0, gt=1, description="Unpacked size over packed size beyond which a file is a bomb"
    )
    seconds: float = Field(30.0, gt=0, description="Time for parsing one pdf, epub or docx")
    strict: bool = Field(False, description="A broken file is an error instead of a line in the report")


class Languages(Config):
    """Language identification; `keep` empty keeps all. Thresholds may differ by language."""

    use: OnOff = "off"
    keep: tuple[str, ...] = Field((), description="ISO 639-1 codes to keep")
    threshold: float = Field(
        0.5, ge=0, le=1, description="Least score of the best language; below it the text counts as und"
    )
    thresholds: dict[str, float] = Field({}, description="The same for single languages")
    filters: dict[str, dict[Filter, dict[str, Any]]] = Field(
        {},
        description="By language the settings of filters that differ there, such as "
        "{de: {gopher: {max_mean_word: 12}, c4: {use: off}}}",
    )


class Gopher(Config):
    """Quality rules of arXiv:2112.11446, table A1."""

    use: OnOff = "off"
    min_words: int = Field(50, ge=0, description="Words that are not only punctuation")
    max_words: int = Field(100_000, ge=0, description="The same, at most")
    min_mean_word: float = Field(3.0, ge=0, description="Characters of a word, on average")
    max_mean_word: float = Field(10.0, ge=0, description="The same, at most")
    max_symbol_ratio: float = Field(0.1, ge=0, description="Hash signs and ellipses per word")
    max_bullet_lines: float = Field(0.9, ge=0, description="Share of lines that begin with a bullet")
    max_ellipsis_lines: float = Field(0.3, ge=0, description="Share of lines that end with an ellipsis")
    min_alphabetic_words: float = Field(0.8, ge=0, description="Least share of words with a letter")
    min_stop_words: int = Field(2, ge=0, description="How many of `stop_words` must occur")
    stop_words: tuple[str, ...] = Field(
        ("the", "be", "to", "of", "and", "that", "have", "with"), description="Compared as they are written"
    )


class Repetition(Config):
    """Repetition rules of arXiv:2112.11446, table A1: shares of lines, paragraphs and n-grams that repeat."""

    use: OnOff = "off"
    max_duplicate_lines: float = Field(0.3, ge=0, description="Share of lines that occurred before")
    max_duplicate_paragraphs: float = Field(0.3, ge=0, description="Share of paragraphs that occurred before")
    max_duplicate_line_characters: float = Field(0.2, ge=0, description="Share of characters in such lines")
    max_duplicate_paragraph_characters: float = Field(
        0.2, ge=0, description="Share of characters in such paragraphs"
    )
    top_ngrams: dict[int, float] = Field(
        {2: 0.2, 3: 0.18, 4: 0.16}, description="n: share of characters in the most frequent n-gram"
    )
    duplicate_ngrams: dict[int, float] = Field(
        {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10},
        description="n: share of characters in n-grams that repeat",
    )


class C4(Config):
    """Rules of arXiv:1910.10683, section 2.2: lines first, then the page."""

    use: OnOff = "off"
    terminal_punctuation: bool = Field(True, description="Drop lines that do not end as a sentence")
    min_line_words: int = Field(3, ge=0, description="Drop lines with fewer words")
    max_word_characters: int = Field(1000, ge=0, description="Drop lines with a longer word")
    drop_javascript_lines: bool = Field(True, description="Drop lines that mention JavaScript")
    drop_policy_lines: bool = Field(
        True, description="Drop lines about cookies, privacy policy or terms of use"
    )
    drop_lorem_ipsum: bool = Field(True, description="Drop documents that hold it")
    drop_curly_bracket: bool = Field(True, description="Drop documents that hold one")
    min_sentences: int = Field(5, ge=0, description="Least sentences that are left")


class FineWeb(Config):
    """Rules of arXiv:2406.17557, section 3.3."""

    use: OnOff = "off"
    min_lines_with_punctuation: float = Field(
        0.12, ge=0, description="Least share of lines that end as a sentence"
    )
    max_short_lines: float = Field(0.67, ge=0, description="Share of short lines")
    short_line_characters: int = Field(30, ge=0, description="Longest line that is short")
    max_duplicate_line_characters: float = Field(
        0.01, ge=0, description="Share of characters in lines that occurred before"
    )
    max_newlines_per_word: float = Field(0.3, ge=0, description="Line breaks over words")


class Code(Config):
    """Rules for source code."""

    use: OnOff = "off"
    max_line_characters: int = Field(1000, ge=0, description="Longest line")
    max_mean_line_characters: float = Field(100.0, ge=0, description="Mean length of a line")
    min_alphanumeric: float = Field(
        0.25, ge=0, description="Least share of characters that are ASCII letters and digits"
    )
    drop_generated: bool = Field(True, description="Drop files whose head says that a program wrote them")


class Quality(Config):
    """A classifier learned from labelled examples (hashed n-grams, logistic regression), or a model that was trained to
    tell labels apart."""

    use: OnOff = "off"
    examples: Annotated[str | None, Input("raw")] = Field(
        None, description="JSON Lines of {text, label: 0 or 1}"
    )
    model: Annotated[str | None, Input("model")] = Field(
        None, description="A model that tells labels apart (`finetune labelled=...`), instead of `examples`"
    )
    labels: tuple[str, ...] = Field(
        (), description="Labels of `model` that mean keep: the score is their probability"
    )
    threshold: float = Field(0.5, ge=0, le=1, description="Least score to be kept")

    @model_validator(mode="after")
    def _one_classifier(self) -> Self:
        if self.examples is not None and self.model is not None:
            raise ValueError("give `examples` or `model`, not both")
        if (self.model is None) != (not self.labels):
            raise ValueError("`model` and `labels` belong together: say which labels mean keep")
        return self


class Toxicity(Config):
    """A lexicon, or any function `module:callable` (texts -> scores in 0..1)."""

    use: OnOff = "off"
    score: str = Field(
        "lexicon",
        description="lexicon, learned (a classifier trained on `examples`), or module:callable (texts -> scores)",
    )
    examples: Annotated[str | None, Input("raw")] = Field(
        None, description="JSON Lines of {text, label: 0 or 1}"
    )
    threshold: float = Field(0.5, ge=0, le=1, description="Score from which a text is dropped")
    group_thresholds: Literal["same", "equal-rates"] = Field(
        "same",
        description="equal-rates: texts that mention a group of people get a threshold raised so far that its "
        "false-positive rate on the templates is at most the mean of all groups",
    )


class Fuzzy(Config):
    """MinHash with banding (Broder 1997); every candidate pair is checked by its true Jaccard index."""

    use: OnOff = "off"
    words: int = Field(5, ge=1, description="Words in a shingle")
    bands: int = Field(20, ge=1, description="Documents that agree in one band are compared")
    rows: int = Field(6, ge=1, description="Hashes in a band: more rows or fewer bands find less")
    jaccard: float = Field(0.8, gt=0, le=1, description="Least true Jaccard index of duplicates")
    keep: Literal["longest", "first"] = Field("longest", description="Which document of a cluster stays")


class Substring(Config):
    """Long spans that occur again are removed, except for the first (arXiv:2107.06499)."""

    use: OnOff = "off"
    words: int = Field(50, ge=10, description="Least words of a repeated span")


class Pii(Config):
    """Personal data and secrets."""

    action: Literal["mask", "pseudonymise", "report", "drop"] = Field(
        "mask", description="`<EMAIL>` in its place; made-up values; only count; drop the document"
    )
    ip: bool = Field(False, description="IP addresses too")
    national_ids: tuple[str, ...] = Field(
        (), description="Countries (ISO 3166) whose personal numbers are looked for"
    )
    names: str | None = Field(
        None, description="module:callable that finds names and addresses: texts -> spans"
    )


class Decontamination(Config):
    """Drop documents that hold test items (arXiv:2005.14165, appendix C)."""

    problems: Annotated[str | None, Input("raw")] = Field(
        None, description="Folder or file of test items: txt, JSON Lines, Parquet"
    )
    columns: tuple[str, ...] = Field((), description="Columns that hold the items' texts; empty: all texts")
    words: int = Field(13, ge=5, description="Words in a run that counts as a leak")
    action: Literal["drop", "cut"] = Field(
        "drop", description="Drop the document, or cut the runs with 200 characters around"
    )


class Mixture(Config):
    """How much of the corpus to keep, divided by the weights of the sources."""

    total: int | None = Field(None, ge=1, description="Size of the corpus; None keeps all there is")
    unit: Literal["bytes", "tokens"] = Field("tokens", description="Tokens are estimated at 4 bytes each")


class Canary(Config):
    """Secrets planted at known rates, so that memorisation can be measured after training (arXiv:1802.08232)."""

    rates: tuple[int, ...] = Field(
        (), description="How often each secret is planted, such as 1, 4, 16; empty plants none"
    )
    each: int = Field(5, ge=1, description="Secrets for every rate")
