"""The arguments of pipelines, by the names that transformers gave them, and what they mean in Matura's settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import Field

from matura.api.model import LanguageModel
from matura.core.config import Config, parse
from matura.core.errors import ConfigError
from matura.core.settings import Sampling

C = TypeVar("C", bound=Config)

NOT_TAKEN = {
    "load_in_4bit": "models are held in float32; 4 bits are for the base of a fine-tuning (base.format=int4)",
    "load_in_8bit": "models are held in float32",
    "quantization_config": "models are held in float32",
    "dtype": "models are held in float32",
    "torch_dtype": "models are held in float32",
    "device_map": "a model is on one device: device=0",
    "trust_remote_code": "code that comes with a model is never run",
    "tokenizer": "a model is always used with its own tokenizer",
    "revision": "it is a part of the reference: model='hf:org/name@revision'",
    "pad_token_id": "padding is always masked and needs no token",
}
"""Arguments people know that have no place here, and why."""


class Writing(Config):
    """How text is generated. What is None comes from the model's own defaults, then from Matura's."""

    max_new_tokens: int | None = Field(None, ge=1, description="Longest answer in tokens")
    max_length: int | None = Field(None, ge=1, description="Longest prompt and answer together, in tokens")
    do_sample: bool | None = Field(None, description="False takes the likeliest token each time")
    temperature: float | None = Field(None, description="Divides the logits")
    top_k: int | None = Field(None, description="Keep the k likeliest tokens; 0 keeps all")
    top_p: float | None = Field(None, description="Keep the fewest tokens that hold this much probability")
    min_p: float | None = Field(
        None, description="Drop tokens below this share of the best one's probability"
    )
    typical_p: float | None = Field(None, description="Keep the least surprising tokens that hold this much")
    repetition_penalty: float | None = Field(
        None, description="Divides the scores of tokens that came before"
    )
    no_repeat_ngram_size: int | None = Field(None, description="No run of this many tokens comes twice")
    num_return_sequences: int | None = Field(None, ge=1, description="Answers to each prompt")
    num_beams: int | None = Field(None, ge=1, description="Above 1: beam search")
    length_penalty: float | None = Field(None, description="Of beam search: above 0 favours long answers")
    early_stopping: bool | Literal["never"] | None = Field(None, description="Of beam search: when to end it")
    stop_strings: str | tuple[str, ...] | None = Field(
        None, description="Texts that end the answer, and stay in it"
    )
    stop_sequence: str | tuple[str, ...] | None = Field(None, description="Another name of stop_strings")
    eos_token_id: int | tuple[int, ...] | None = Field(
        None, description="Ids that end the answer, not the model's"
    )
    bad_words_ids: tuple[tuple[int, ...], ...] | None = Field(
        None, description="Ids that never come in a row"
    )
    seed: int | None = Field(None, description="The same seed gives the same text")
    truncation: bool = Field(False, description="Cut the end of a prompt that leaves no room for the answer")
    batch_size: int = Field(16, ge=1, description="Prompts that are read together; changes no result")


class TextGeneration(Writing):
    """Arguments of text-generation."""

    return_full_text: bool = Field(True, description="The prompt is a part of the result")
    prefix: str = Field("", description="Text before every prompt, left out of the result")


class FillMask(Config):
    """Arguments of fill-mask."""

    top_k: int = Field(5, ge=1, description="Fills for each mask")
    targets: str | tuple[str, ...] | None = Field(None, description="Look only at these tokens")
    batch_size: int = Field(16, ge=1, description="Texts that are read together; changes no result")


class TextClassification(Config):
    """Arguments of text-classification."""

    top_k: int | None = Field(None, ge=1, description="Labels of each text, likeliest first; None is all")
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = Field(
        None, description="From logits to scores; None: softmax, or sigmoid where there is one label"
    )
    truncation: bool = Field(False, description="Cut the end of a text that is longer than the context")
    batch_size: int = Field(16, ge=1, description="Texts that are read together; changes no result")


class FeatureExtraction(Config):
    """Arguments of feature-extraction."""

    return_tensors: bool = Field(False, description="Tensors instead of nested lists")
    truncation: bool = Field(False, description="Cut the end of a text that is longer than the context")
    batch_size: int = Field(16, ge=1, description="Texts that are read together; changes no result")


def refuse(given: Mapping[str, Any], where: str) -> None:
    """Raises ConfigError for an argument that people know and that has no place here."""
    for name in given:
        if name in NOT_TAKEN:
            raise ConfigError(f"{where}: {name} is not taken: {NOT_TAKEN[name]}; leave it out")


def texts(value: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """One text, several or none, as several."""
    return () if value is None else (value,) if isinstance(value, str) else value


ONLY_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty")
ONLY_BEAMS = ("length_penalty", "early_stopping")


def beam_settings(model: LanguageModel, given: Writing, where: str) -> dict[str, Any] | None:
    """The settings of a beam search, or None when the arguments do not ask for one. Raises ConfigError for arguments
    that a beam search does not know."""
    found = {
        "beams": given.num_beams if given.num_beams != 1 else None,
        "max_new_tokens": given.max_new_tokens,
        "n": given.num_return_sequences,
        "no_repeat_ngram": given.no_repeat_ngram_size,
        "length_penalty": given.length_penalty,
        "early_stopping": given.early_stopping,
    }
    settings = {name: value for name, value in found.items() if value is not None}
    other = [name for name in ONLY_SAMPLING if getattr(given, name) is not None]
    others = [
        *other,
        *(name for name in ("bad_words_ids", "stop_strings", "stop_sequence") if getattr(given, name)),
    ]
    sampled = bool(given.do_sample or others or given.num_beams == 1)
    if not model.searches(settings) or ("beams" not in settings and sampled):
        if wrong := [name for name in ONLY_BEAMS if getattr(given, name) is not None]:
            raise ConfigError(
                f"{where}: {wrong[0]} is for beam search only: set num_beams above 1, or leave it out"
            )
        return None
    if given.do_sample:
        raise ConfigError(
            f"{where}: do_sample=True with num_beams: beam search draws nothing; give one of them"
        )
    if others:
        raise ConfigError(f"{where}: beam search does not know {others[0]}; leave it or num_beams out")
    return settings


def sampling_settings(model: LanguageModel, given: Writing, where: str) -> Sampling:
    """The arguments as settings of the engine; stop strings stay texts. Raises ConfigError."""
    names = (*ONLY_SAMPLING, "max_new_tokens", "seed")
    settings = {name: getattr(given, name) for name in names if getattr(given, name) is not None}
    if given.do_sample is False:
        if wrong := [name for name in ONLY_SAMPLING[:-1] if name in settings]:
            raise ConfigError(
                f"{where}: {wrong[0]} with do_sample=False, which takes the likeliest token: leave one of them out"
            )
        settings["temperature"] = 0
    if given.do_sample and given.temperature == 0:
        raise ConfigError(
            f"{where}: temperature={given.temperature:g} with do_sample=True: it takes the likeliest token and draws "
            "nothing; leave one of them out"
        )
    if given.do_sample and "temperature" not in settings:
        settings["temperature"] = model.format.generation.get("temperature") or 1.0
    settings |= {"stop": (*texts(given.stop_strings), *texts(given.stop_sequence))} if _stops(given) else {}
    if given.num_return_sequences is not None:
        settings["n"] = given.num_return_sequences
    if given.no_repeat_ngram_size is not None:
        settings["no_repeat_ngram"] = given.no_repeat_ngram_size
    sampling = model.sampling(**settings)
    if sampling.n > 1 and sampling.temperature == 0:
        raise ConfigError(
            f"{where}: num_return_sequences={sampling.n} without draws gives one answer {sampling.n} times: set "
            "do_sample=True, or num_beams to at least as many"
        )
    return sampling


def _stops(given: Writing) -> bool:
    return given.stop_strings is not None or given.stop_sequence is not None


def parsed(cls: type[C], values: Mapping[str, Any], where: str) -> C:
    """The arguments of one call. Raises ConfigError: all that is wrong, with the nearest valid names."""
    refuse(values, where)
    return parse(cls, dict(values), where)
