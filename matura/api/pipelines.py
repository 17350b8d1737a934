"""`matura.pipeline(task, model=...)`: calls and results of the shape that transformers' pipelines made familiar.

>>> generator = matura.pipeline("text-generation", model="gpt2", device="cpu")
>>> generator("Once upon a time", max_new_tokens=20)
[{'generated_text': 'Once upon a time ...'}]

What differs, on purpose: unknown arguments are refused by name; a draw is decided by `seed`, so the same call gives the
same text; `batch_size` changes the speed and never the result.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matura.api import arguments, writing
from matura.api.arguments import FeatureExtraction, FillMask, TextClassification, TextGeneration, Writing
from matura.api.loading import load
from matura.api.model import LanguageModel, device_name
from matura.core.config import Config, did_you_mean
from matura.core.errors import ConfigError
from matura.core.workspace import Workspace

if TYPE_CHECKING:
    from matura.model.config import ModelConfig

Run = Callable[[LanguageModel, Any, Mapping[str, Any]], Any]


class Pipeline:
    """A task with a model: call it with an input or a list of them. Arguments given here are defaults of its calls."""

    def __init__(self, task: str, model: LanguageModel, **defaults: Any) -> None:
        self.task, self.model = task, model
        self._run = _run(task, model)
        arguments.parsed(_settings(task), defaults, task)
        _fits(task, model)
        self._defaults = defaults

    def __call__(self, inputs: Any, **given: Any) -> Any:
        """The result for one input; a list of inputs gives a list of results."""
        if not isinstance(inputs, str | Sequence):
            raise ConfigError(f"{self.task}: expected a text or a list, got {inputs!r:.200}")
        return (
            self._run(self.model, inputs, {**self._defaults, **given}) if len(inputs) or inputs == "" else []
        )


def pipeline(
    task: str,
    model: str | Path | LanguageModel | None = None,
    *,
    device: str | int | None = None,
    workspace: Workspace | None = None,
    **defaults: Any,
) -> Pipeline:
    """A task with a model by reference, ready to be called.

    Tasks: text-generation (texts or conversations), fill-mask, feature-extraction, text-classification,
    text2text-generation, summarization, translation or translation_xx_to_yy. `defaults` are arguments of its calls.
    `device` is the CPU by default, or the one that a loaded model is on. Raises ConfigError for an unknown task or
    argument and for a device that is not there or not the loaded model's, MaturaError for a model that cannot do the
    task.
    """
    arguments.parsed(_settings(task), defaults, task)
    if model is None:
        raise ConfigError(f"{task}: which model? Name one: pipeline({task!r}, model='...')")
    if not isinstance(model, LanguageModel):
        model = load(model, device="cpu" if device is None else device, workspace=workspace)
    elif device is not None and device_name(device) != model.device:
        raise ConfigError(
            f"device={device!r}: this model is on {model.device!r} already; leave device out, or give the model's name"
        )
    return Pipeline(task, model, **defaults)


def fill_mask(model: LanguageModel, inputs: Any, given: Mapping[str, Any]) -> Any:
    """For a text with one mask a list of fills, likeliest first; with several masks, a list for each."""
    from matura.infer import fill

    settings = arguments.parsed(FillMask, given, "fill-mask")
    texts, tokenizer = _texts(inputs, "fill-mask"), model.tokenizer
    among = None
    if settings.targets is not None:
        among = list(dict.fromkeys(_target(model, one) for one in arguments.texts(settings.targets)))
    found = []
    batch = settings.batch_size
    for one in fill.fill(model.model, tokenizer, texts, top_k=settings.top_k, among=among, batch=batch):
        at = [t for t, id in enumerate(one.ids) if id == tokenizer.mask_id]
        single = len(at) == 1
        lists = [
            [
                {
                    "score": fill.probability,
                    "token": fill.id,
                    "token_str": fill.token,
                    "sequence": tokenizer.decode(
                        [*one.ids[:t], fill.id, *one.ids[t + 1 :]], skip_special=single
                    ),
                }
                for fill in fills
            ]
            for t, fills in zip(at, one.fills, strict=True)
        ]
        found.append(lists[0] if single else lists)
    return found[0] if len(found) == 1 else found


def text_classification(model: LanguageModel, inputs: Any, given: Mapping[str, Any]) -> Any:
    """The likeliest label of each text, as a list of dicts; with `top_k`, a list of labels for each text."""
    from matura.infer import classify

    settings = arguments.parsed(TextClassification, given, "text-classification")
    rows = _rows(model, _texts(inputs, "text-classification"), settings.truncation)
    scores = classify.classify(
        model.model, rows, function=settings.function_to_apply, batch=settings.batch_size
    ).tolist()
    names = classify.labels(model.model)
    ranked = [
        sorted(
            ({"label": name, "score": score} for name, score in zip(names, row, strict=True)),
            key=lambda one: -one["score"],
        )
        for row in scores
    ]
    if "top_k" not in settings.model_fields_set:
        return [row[0] for row in ranked]
    kept = [row[: settings.top_k] for row in ranked]
    return kept[0] if isinstance(inputs, str) else kept


def feature_extraction(model: LanguageModel, inputs: Any, given: Mapping[str, Any]) -> Any:
    """The last hidden states of every token of a text, [1][tokens][width], as nested lists or tensors."""
    import torch

    from matura.infer.reading import hidden_states

    settings = arguments.parsed(FeatureExtraction, given, "feature-extraction")
    rows = _rows(model, _texts(inputs, "feature-extraction"), settings.truncation)
    found: list[Any] = [None] * len(rows)
    with torch.inference_mode():
        for indices, hidden_BTD, _ in hidden_states(model.model, rows, settings.batch_size):
            for i, hidden_TD in zip(indices, hidden_BTD, strict=True):
                found[i] = hidden_TD[None, : len(rows[i])].cpu()
    values = found if settings.return_tensors else [one.tolist() for one in found]
    return values[0] if isinstance(inputs, str) else values


TASKS: dict[str, Run] = {
    "text-generation": writing.text_generation,
    "fill-mask": fill_mask,
    "feature-extraction": feature_extraction,
    "text-classification": text_classification,
    "sentiment-analysis": text_classification,
    "text2text-generation": functools.partial(
        writing.text_to_text, key="generated_text", where="text2text-generation"
    ),
    "translation": functools.partial(writing.text_to_text, key="translation_text", where="translation"),
    "summarization": functools.partial(writing.text_to_text, key="summary_text", where="summarization"),
}
SETTINGS: dict[str, type[Config]] = {
    "text-generation": TextGeneration,
    "fill-mask": FillMask,
    "feature-extraction": FeatureExtraction,
    "text-classification": TextClassification,
    "sentiment-analysis": TextClassification,
}
"""The arguments of a task; all others write, and take those of `Writing`."""
_TRANSLATION = re.compile(r"translation_([a-z]{2,3})_to_([a-z]{2,3})")


def _task(task: str) -> tuple[str, str] | None:
    """The languages of a translation_xx_to_yy; raises ConfigError for an unknown task."""
    if match := _TRANSLATION.fullmatch(task):
        return match[1], match[2]
    if task not in TASKS:
        names = [*TASKS, "translation_en_to_de"]
        raise ConfigError(f"there is no task {task!r}{did_you_mean(task, names)}")
    return None


def _run(task: str, model: LanguageModel) -> Run:
    languages = _task(task)
    if languages is not None:
        prefix = writing.translation_prefix(model, *languages)
        return functools.partial(writing.text_to_text, key="translation_text", where=task, prefix=prefix)
    if task == "summarization" and model.model.config.family == "t5":
        return functools.partial(writing.text_to_text, key="summary_text", where=task, prefix="summarize: ")
    return TASKS[task]


def _settings(task: str) -> type[Config]:
    """The arguments of a task; raises ConfigError for an unknown one."""
    _task(task)
    return SETTINGS.get(task, Writing)


def _fits(task: str, model: LanguageModel) -> None:
    """Raises MaturaError for a model that has not the parts or the head that the task needs."""
    from matura.infer import classify, fill

    run, config = TASKS.get(task), model.model.config
    if run is fill_mask:
        fill.able(model.model, model.tokenizer)
    elif run is text_classification:
        classify.labels(model.model)
    elif run is not feature_extraction:
        parts = (
            "no encoder" if config.encoder is None else "an encoder" if config.decoder else "only an encoder"
        )
        suited = _suited(config)
        if (run is writing.text_generation, suited) not in (
            (True, "text-generation"),
            (False, "text2text-generation"),
        ):
            head = "" if config.head.kind == "language" else " and no scores over its vocabulary"
            raise ConfigError(f"{task}: this model has {parts}{head}; its task is {suited}")


def _suited(config: ModelConfig) -> str:
    """The task that a model was made for."""
    if config.head.kind == "classifier":
        return "text-classification"
    if config.head.kind != "language":
        return "feature-extraction"
    if config.encoder is None:
        return "text-generation"
    return "fill-mask" if config.decoder is None else "text2text-generation"


def _texts(inputs: Any, where: str) -> list[str]:
    many = [inputs] if isinstance(inputs, str) else list(inputs)
    for item in many:
        if not isinstance(item, str):
            raise ConfigError(f"{where}: expected a text or a list of texts, got {item!r:.200}")
    return many


def _rows(model: LanguageModel, texts: list[str], truncation: bool) -> list[list[int]]:
    from matura.infer.reading import check, clipped, longest

    if truncation:
        return clipped(model.tokenizer, texts, longest(model.model))[0]
    rows = [model.tokenizer(text) for text in texts]
    check(model.model, rows, advice="shorten it, or set truncation=True")
    return rows


def _target(model: LanguageModel, text: str) -> int:
    """The id of a token that a mask may become. Raises ConfigError for what is not one token."""
    id = model.tokenizer.backend.token_to_id(text)
    ids = [id] if id is not None else model.tokenizer.encode(text)
    if len(ids) != 1 or (id is None and ids[0] == model.tokenizer.unk_id):
        raise ConfigError(
            f"fill-mask: targets: {text!r} is not one token of the vocabulary; a mask becomes one token"
        )
    return ids[0]
