"""Corpora to a tokenizer with its special tokens and conversation format: byte-level BPE, WordPiece or Unigram."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from matura.core import config
from matura.core.artifact import Artifact, Draft, RawInput
from matura.core.chance import chance
from matura.core.config import Input
from matura.core.corpora import corpora, documents
from matura.core.errors import FormatError, MaturaError
from matura.core.plan import Estimate
from matura.core.tokens_settings import Chat, Corpus
from matura.core.workspace import Workspace

if TYPE_CHECKING:
    from matura.tokenizer.conversation import Format
    from matura.tokenizer.survey import Text
    from matura.tokenizer.tokenizer import Tokenizer

KIND = "tokenizer"
VERSION = 1
BYTES_PER_SECOND = {"bpe": 4_000_000, "wordpiece": 2_500_000, "unigram": 400_000}
NORMALIZATION = {"bpe": "none", "wordpiece": "uncased", "unigram": "nfkc"}
SURVEY_BYTES = 16 << 20  # of held-out text, and of training text, that the report reads
MAX_TEMPLATE_BYTES = 1 << 20


class Config(config.Config):
    """What to learn from, which kind, and what the model will need."""

    corpus: Annotated[str | None, Input("corpus")] = Field(None, description="Documents to learn from")
    corpora: dict[str, Corpus] = Field({}, description="Several corpora by name, instead of `corpus`")
    kind: Literal["bpe", "wordpiece", "unigram"] = Field(
        "bpe", description="Byte-level BPE, WordPiece or Unigram"
    )
    model: Literal["decoder", "encoder", "encoder-decoder"] = Field(
        "decoder", description="The model that it is for: decides the special tokens"
    )
    vocabulary: int = Field(16_384, ge=64, le=1 << 20, description="Tokens in all, special ones included")
    min_frequency: int = Field(
        2, ge=1, description="Pairs that occur less often are not merged (BPE, WordPiece)"
    )
    pattern: str = Field(
        "gpt-2",
        description="BPE: how text is cut into words, by a known name (gpt-2, qwen2, gpt-4o, ...) or a "
        "regular expression",
    )
    digits: Literal["single", "together"] = Field(
        "single", description="Each digit a token of its own, or as the pattern cuts numbers"
    )
    normalization: Literal["auto", "none", "nfc", "nfkc", "cased", "uncased"] = Field(
        "auto",
        description="Changes to every text: Unicode forms, or BERT's cleaning; auto is none for bpe, uncased for "
        "wordpiece, nfkc for unigram",
    )
    special_tokens: tuple[str, ...] = Field((), description="More special tokens, beside those of the model")
    sentinels: int = Field(
        100, ge=0, le=1000, description="encoder-decoder: tokens <extra_id_0>, ... that mark spans to fill"
    )
    chat: Chat = Field(Chat(), description="How a decoder writes conversations")
    max_bytes: int = Field(
        256 << 20,
        ge=1 << 10,
        description="Text to learn from; of more, a seeded sample of about this size is taken",
    )
    seed: int = Field(0, description="Another seed samples other documents")
    compare: tuple[str, ...] = Field(
        ("gpt2", "smollm2"),
        description="Tokenizers beside it in the report: gpt2 (fetched, 0.6 MB), smollm2 (if pulled), models of the "
        "workspace, paths of tokenizer.json",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.corpus is None) == (not self.corpora):
            raise ValueError("give `corpus` (one) or `corpora` (several, by name), and not both")
        if self.kind != "bpe" and self.pattern != "gpt-2":
            raise ValueError(f"`pattern` is for kind=bpe; {self.kind} cuts words by a rule of its own")
        if self.kind == "unigram" and self.changed("min_frequency"):
            raise ValueError("`min_frequency` is for bpe and wordpiece; unigram merges no pairs")
        if self.model != "encoder-decoder" and self.changed("sentinels"):
            raise ValueError(f"`sentinels` are for model=encoder-decoder, not {self.model}")
        own = self.chat.format == "own"
        if own != (self.chat.template is not None) or own != bool(self.chat.stop):
            raise ValueError(
                "chat.format=own needs `chat.template` and `chat.stop`, and the others take neither"
            )
        if own and self.model != "decoder":
            raise ValueError("only a decoder writes conversations: leave `chat` out")
        return self


def estimate(config: Config, inputs: dict[str, Artifact | RawInput | None]) -> Estimate:
    """Time from the size of the corpora; Parquet packs text to about half."""
    files = [one.record["files"] for one in corpora(inputs).values()]
    packed = sum(one.get("train.parquet", {}).get("bytes", 0) for one in files)
    text = min(2 * packed, config.max_bytes)
    return Estimate(
        seconds=3 + text / BYTES_PER_SECOND[config.kind],
        memory_bytes=(300 << 20) + 2 * text,
        disk_bytes=(1 << 20) + 100 * config.vocabulary,
        note=f"{config.kind}, {config.vocabulary:,} tokens, from about {text / 1e6:,.0f} MB of text",
        vocabulary=config.vocabulary,
    )


def run(config: Config, inputs: Mapping[str, Artifact | RawInput], draft: Draft) -> Artifact:
    """Make tokenizer.json, conversation.json, generation.json and the report.

    Raises MaturaError when there is no text, the vocabulary has no room for the alphabet, or the conversation format
    does not work with the tokens.
    """
    from matura.tokenizer import training

    texts = _Sample(inputs, config.max_bytes, config.seed)
    began = time.perf_counter()
    format = _format(config, inputs, lambda plan: training.train(texts, plan))
    seconds = time.perf_counter() - began
    format.save(draft.path)
    size = format.tokenizer.vocab_size
    told = _report(config, inputs, draft, format.tokenizer, texts)
    whole = told["tokenizers"]["this one"]
    made = (
        f"{size:,} tokens"
        if size >= config.vocabulary
        else f"{size:,} of {config.vocabulary:,} tokens (little text)"
    )
    summary = {
        "line": f"{config.kind} for a {config.model}, {made}, from {texts.bytes / 1e6:.1f} MB; "
        f"{whole['bytes_per_token']:.3f} bytes a token on held-out documents",
        "vocabulary": size,
        "asked": config.vocabulary,
        "text_bytes": texts.bytes,
        "text_documents": texts.documents,
        "bytes_per_token": whole["bytes_per_token"],
        "tokens_per_word": whole["tokens_per_word"],
        "unused": told["unused"]["share"],
    }
    from matura.tokenizer import report

    settings = config.model_dump(mode="json")
    report.write(draft.path, {**told, "line": summary["line"], "seconds": seconds, "settings": settings})
    return draft.commit(summary, logs=("report.json", "report.html"))


class _Sample:
    """The texts to learn from, again at every call: all, or the documents that a hash of seed and id chooses."""

    def __init__(self, inputs: Mapping[str, Artifact | RawInput], most: int, seed: int) -> None:
        self._inputs, self._seed = inputs, seed
        self.bytes = self.documents = total = 0
        for _, document in documents(inputs, "train.parquet"):
            total += len(document.text.encode())
        self._share = min(1.0, most / max(1, total))
        for text in self():
            self.bytes += len(text.encode())
            self.documents += 1

    def __call__(self) -> Iterator[str]:
        for _, document in documents(self._inputs, "train.parquet"):
            if self._share >= 1 or chance(f"{self._seed}/{document.id}") < self._share:
                yield document.text


def _format(config: Config, inputs: Mapping[str, Artifact | RawInput], train: Any) -> "Format":
    """The trained tokenizer with what its model needs: special tokens, their roles, template and stop tokens."""
    from matura.tokenizer import roles
    from matura.tokenizer.tokenizer import Tokenizer
    from matura.tokenizer.training import Plan

    chat = config.model == "decoder" and config.chat.format != "none"
    tokens = roles.special(
        config.model,
        chat and config.chat.format == "chatml",
        config.kind != "bpe",
        config.sentinels,
        config.special_tokens,
    )
    normalization = NORMALIZATION[config.kind] if config.normalization == "auto" else config.normalization
    plan = Plan(
        config.kind,
        config.vocabulary,
        tokens.names,
        tokens.roles.unk,
        config.pattern,
        config.digits,
        normalization,
        config.min_frequency,
    )
    template: str | None = None
    stop: tuple[str, ...] = () if tokens.roles.eos is None else (tokens.roles.eos,)
    if chat and config.chat.format == "own":
        template, stop = _template(inputs["chat.template"].path), config.chat.stop
        if unknown := [name for name in stop if name not in tokens.names]:
            raise MaturaError(f"chat.stop: {unknown[0]!r} is no special token: name it in `special_tokens`")
    elif chat:
        template, stop = roles.CHATML, (roles.CLOSE, *stop)
    backend = train(plan)
    roles.surround(backend, tokens)
    return roles.conversation(Tokenizer(backend, tokens.roles), template, stop)


def _template(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_TEMPLATE_BYTES:
            raise FormatError(f"{path}: too large for a conversation template")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: cannot be read as text: {error}") from error


def _report(
    config: Config,
    inputs: Mapping[str, Artifact | RawInput],
    draft: Draft,
    tokenizer: "Tokenizer",
    sample: _Sample,
) -> dict[str, Any]:
    from matura.tokenizer import references, survey

    heldout = list(_bounded(inputs))
    mine = survey.survey(tokenizer, heldout)
    trained = survey.survey(tokenizer, (survey.Text(text, "", "") for text in _first(sample())))
    # runs/<recipe>/<stage>/: the workspace that this run belongs to
    parents = draft.path.parents
    place = Workspace(parents[2] if len(parents) > 2 and parents[1].name == "runs" else None)
    found = [references.find(name, place) for name in config.compare]
    others = {
        one.name: survey.survey(one.tokenizer, heldout).told() for one in found if one.tokenizer is not None
    }
    return {
        "tokenizers": {"this one": mine.told(), **others},
        "absent": {one.name: one.absent for one in found if one.tokenizer is None},
        "unused": survey.unused(tokenizer, mine.used + trained.used),
        "longest": survey.longest(tokenizer),
    }


def _bounded(inputs: Mapping[str, Artifact | RawInput]) -> "Iterator[Text]":
    from matura.tokenizer.survey import Text

    used = 0
    for source, document in documents(inputs, "heldout.parquet"):
        yield Text(document.text, source, document.meta.get("language", ""))
        used += len(document.text)
        if used >= SURVEY_BYTES:
            return


def _first(texts: Iterator[str]) -> Iterator[str]:
    used = 0
    for text in texts:
        yield text
        used += len(text)
        if used >= SURVEY_BYTES:
            return
