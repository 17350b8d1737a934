"""Make a prompt: a system message, a template and examples, as files with a version.

What comes out is a folder with prompt.yaml, which people can read and edit, and examples.jsonl. `evaluate`,
`finetune`, `matura chat` and `matura generate` take it, or a prompt.yaml that somebody wrote.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from matura.core import config, promptfile
from matura.core.artifact import Artifact, Draft, RawInput
from matura.core.config import Input
from matura.core.conversation_settings import FOR_FILES, ConversationData
from matura.core.errors import ConfigError, FormatError
from matura.core.inputs import inputs_of, located
from matura.core.plan import Estimate
from matura.core.promptfile import Choose, PromptFile
from matura.core.records import Conversation, read_conversations, write_conversations

if TYPE_CHECKING:
    from matura.core.workspace import Workspace
    from matura.tokenizer.prompt import Prompt

KIND = "prompt"
VERSION = 1
MAX_TEXT_BYTES = 256 << 10
DATA = ConversationData(heldout=0)
OF_EXAMPLES = ("ids", "count", "choose", "seed", "pool")
"""Settings that do nothing without examples."""


class Config(config.Config):
    """What stands around a question, and which examples before it."""

    about: str = Field("", description="What the prompt is for, in a sentence")
    system: str = Field("", description="The system message; empty for none")
    system_file: Annotated[str | None, Input("raw")] = Field(
        None, description="A text file with the system message"
    )
    template: str = Field(promptfile.INPUT, description=promptfile.TEMPLATE)
    template_file: Annotated[str | None, Input("raw")] = Field(
        None, description="A text file with the template"
    )
    examples: Annotated[str | None, Input("conversations", "raw")] = Field(
        None,
        description="Conversations to take examples from: files of your own, hf:organisation/dataset, or what another "
        "stage wrote",
    )
    data: ConversationData = Field(DATA, description="How files of conversations are read")
    count: int = Field(3, ge=1, le=100, description="Examples before a question")
    choose: Choose = Field("fixed", description=promptfile.WAYS)
    ids: tuple[str, ...] = Field((), description="For choose=fixed: ids of the examples, in this order")
    seed: int = Field(0, description="Of choose=random")
    pool: int = Field(2000, ge=1, le=20_000, description="For choose=similar: examples that are searched")
    delimiter: str = Field(" ", description="As plain text: between a question and its answer")
    separator: str = Field("\n\n", description="As plain text: between system text, examples and question")

    @model_validator(mode="after")
    def _fits(self) -> "Config":
        if self.system and self.system_file is not None:
            raise ValueError("give system or system_file, not both")
        if self.template != promptfile.INPUT and self.template_file is not None:
            raise ValueError("give template or template_file, not both")
        if self.ids and self.choose != "fixed":
            raise ValueError("ids are for choose=fixed")
        given = self.changed(*OF_EXAMPLES)
        if self.examples is None and given:
            raise ValueError(f"{given[0]} would do nothing without examples: say where those are")
        for name, way in (("seed", "random"), ("pool", "similar")):
            if name in given and self.choose != way:
                raise ValueError(f"{name} is for choose={way}, and this is choose={self.choose}")
        if self.ids and "count" in given:
            raise ValueError("give ids or count, not both: all of `ids` are shown")
        return self


def raw_input(config: Config, setting: str, workspace: "Workspace | None" = None) -> Path:
    """Where a file is on this machine; a dataset of the hub is fetched first."""
    from matura.data import reading

    if setting == "examples":
        return reading.located(inputs_of(config)[setting], workspace)
    return located(config, setting, workspace)


def estimate(config: Config, inputs: dict[str, Artifact | RawInput | None]) -> Estimate:
    """A moment, and some megabytes at most."""
    return Estimate(seconds=2, memory_bytes=200 << 20, disk_bytes=8 << 20)


def run(config: Config, inputs: dict[str, Artifact | RawInput], draft: Draft) -> Artifact:
    """Write prompt.yaml and the examples that may be shown.

    Raises ConfigError for a template that shows nothing of what is asked, FormatError for files that are no text or no
    conversations, ConfigError when there are fewer examples than are to be shown.
    """
    found, left_out = _examples(config, inputs.get("examples"))
    kept = _kept(config, found)
    shown = promptfile.Shown(
        count=len(config.ids or ()) or (config.count if config.examples else 0),
        choose="similar" if config.choose == "similar" and config.examples else "fixed",
    )
    settings = PromptFile(
        about=config.about,
        system=_text(config.system, inputs.get("system_file")),
        template=_text(config.template, inputs.get("template_file")),
        examples=shown,
        delimiter=config.delimiter,
        separator=config.separator,
    )
    made = _prompt(settings, kept)
    promptfile.write(draft.path, settings)
    if shown.count:
        write_conversations(draft.path / promptfile.EXAMPLES, kept)
    how = f"{shown.count} of {len(kept)} examples, {config.choose}" if shown.count else "no examples"
    summary = {
        "line": f"{'system text' if settings.system else 'no system text'}, {how}",
        "examples": [] if shown.choose == "similar" else [row.id for row in made.fixed],
        "pool": len(kept),
        "left_out": left_out,
    }
    return draft.commit(summary)


def _prompt(settings: PromptFile, examples: list[Conversation]) -> "Prompt":
    from matura.tokenizer.prompt import Prompt

    return Prompt(settings, tuple(examples))


def _text(given: str, file: Artifact | RawInput | None) -> str:
    """The text of a setting, or of a file without the line break at its end."""
    if file is None:
        return given
    path = file.path
    if not path.is_file() or path.stat().st_size > MAX_TEXT_BYTES:
        raise FormatError(f"{path}: expected a text file of at most {MAX_TEXT_BYTES >> 10} KiB")
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: is not UTF-8: {error.reason} at byte {error.start}") from error
    return text.removesuffix("\n")


def _examples(
    config: Config, source: Artifact | RawInput | None
) -> tuple[list[Conversation], dict[str, int]]:
    """What can be an example, each question once; and how many rows cannot, by reason. System messages and all that
    only training reads are left behind."""
    from matura.tokenizer import prompt, shots

    rows, seen = [], set[str]()
    left_out: dict[str, int] = {}
    for row in _rows(config, source):
        asked = " ".join(shots.words(prompt.asked(row.messages)))
        reason = prompt.unfit(row)
        if reason is not None or asked in seen:
            reason = reason or "asks what another one asks"
            left_out[reason] = left_out.get(reason, 0) + 1
            continue
        seen.add(asked)
        turns = [
            {"role": one["role"], "content": one["content"]}
            for one in row.messages
            if one["role"] != "system"
        ]
        rows.append(Conversation(row.id, tuple(turns)))
    return rows, left_out


def _rows(config: Config, source: Artifact | RawInput | None) -> list[Conversation]:
    """Rows to learn from; those held out are no examples."""
    from matura.data import conversations

    for name in ("turns", "truncation") if isinstance(source, RawInput) else type(DATA).model_fields:
        if getattr(config.data, name) != getattr(DATA, name):
            what = "files of conversations" if name in FOR_FILES else "training"
            raise ConfigError(f"data.{name} is for {what} and would do nothing here; leave it out")
    if source is None:
        return []
    if isinstance(source, RawInput):
        return list(conversations.load(source.path, config.data).train)
    return list(read_conversations(source.file("train.jsonl")))


def _kept(config: Config, found: list[Conversation]) -> list[Conversation]:
    """The examples that are shown, in their order; for choose=similar those that are searched."""
    if config.examples is None:
        return []
    if config.choose == "similar":
        return found[: config.pool]
    count = len(config.ids) or config.count
    shown = promptfile.Shown(count=count, choose=config.choose, ids=config.ids, seed=config.seed)
    return list(_prompt(PromptFile(examples=shown), found).fixed)
