"""How an exported model is opened, for its card: the library, the hub's name of the task, and lines that run."""

from __future__ import annotations

from dataclasses import dataclass

from matura.model import config as c

FOLDER, BASE = "PATH_OF_THIS_FOLDER", "PATH_OF_THE_BASE_MODEL"
_PIPELINES = {
    "text-generation": 'print(model("Once upon a time"))',
    "fill-mask": 'print(model(f"Once upon a {model.tokenizer.mask_token}."))',
    "text-classification": 'print(model("Once upon a time"))',
    "feature-extraction": 'print(model("Once upon a time"))',
}
_CHAT = 'print(model([{"role": "user", "content": "Hello!"}]))'
_CLASSES = {
    "text-generation": "AutoModelForCausalLM",
    "text2text-generation": "AutoModelForSeq2SeqLM",
    "fill-mask": "AutoModelForMaskedLM",
    "text-classification": "AutoModelForSequenceClassification",
    "feature-extraction": "AutoModel",
}


@dataclass(frozen=True)
class Usage:
    """`library` and `task` as the hub calls them, and Python `code` that opens the folder."""

    library: str
    task: str
    code: str


def usage(config: c.ModelConfig, *, chat: bool, adapter: bool = False, base: str | None = None) -> Usage:
    """Of a model of these settings, or of an adapter alone that sits on `base`. `chat`: it has a template."""
    task = task_of(config)
    if adapter:
        return Usage("peft", task, _on_base(_CLASSES[task], base or BASE))
    if task == "text2text-generation":  # no pipeline of transformers 5 has it
        return Usage("transformers", task, _whole(_CLASSES[task]))
    asked = _CHAT if chat and task == "text-generation" else _PIPELINES[task]
    opened = f'from transformers import pipeline\n\nmodel = pipeline("{task}", model="{FOLDER}")'
    return Usage("transformers", task, f"{opened}\n{asked}")


def task_of(config: c.ModelConfig) -> str:
    """What the model does, by its head and its stacks."""
    match config.head:
        case c.Classifier():
            return "text-classification"
        case c.LanguageHead():
            if config.decoder is None:
                return "fill-mask"
            return "text-generation" if config.encoder is None else "text2text-generation"
        case _:
            return "feature-extraction"


def _whole(kind: str) -> str:
    return (
        f"from transformers import AutoTokenizer, {kind}\n\n"
        f'tokenizer, model = (one.from_pretrained("{FOLDER}") for one in (AutoTokenizer, {kind}))\n'
        'asked = tokenizer("Once upon a time", return_tensors="pt")\n'
        "print(tokenizer.batch_decode(model.generate(**asked), skip_special_tokens=True))"
    )


def _on_base(kind: str, base: str) -> str:
    return (
        f"from peft import PeftModel\nfrom transformers import {kind}\n\n"
        f'base = {kind}.from_pretrained("{base}")\n'
        f'model = PeftModel.from_pretrained(base, "{FOLDER}")'
    )
