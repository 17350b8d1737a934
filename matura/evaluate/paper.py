"""What an exam asks: which items of which tasks, which documents, which conversations. Nothing is drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from matura.core.artifact import Artifact
from matura.core.conversation_settings import Turns
from matura.core.errors import ConfigError, MaturaError
from matura.core.exam_settings import Asked
from matura.core.raw import RawInput
from matura.core.records import Conversation, Document
from matura.evaluate import asking, prompted, score, spec, tasks
from matura.evaluate.rows import Sources
from matura.evaluate.score import Tokenizer, clip
from matura.evaluate.sitting import CHILD, PARENT, Candidate, Paper, Section
from matura.evaluate.spec import Task
from matura.evaluate.tasks import Item
from matura.tokenizer import prompt as prompts

DOCUMENTS = Task(
    name="domain",
    about="Held-out documents of the corpus",
    kind="text",
    data=("corpus",),
    prompt="{{ text }}",
)
"""The task that documents are read as."""
ANSWERS = Task(
    name="answers",
    about="Answers of held-out conversations, each after what stands before it",
    kind="text",
    data=("conversations",),
    metrics=("bpb",),
)
"""The task that answers of conversations are read as."""
UNEVEN = "the window ends their answers elsewhere for the model than for its parent"


def specifications(asked: Sequence[Asked], folder: Path | None) -> list[Task]:
    """The task of each entry. Raises ConfigError for what there is not, and for two entries of one name."""
    labels = [one.label for one in asked]
    if twice := {label for label in labels if labels.count(label) > 1}:
        raise ConfigError(f"tasks: two are called {min(twice)!r}; give one of them another `name`")
    return [spec.find(one.task, folder) for one in asked]


def plain(asked: Sequence[Asked], chosen: Sequence[Task], panel: Sequence[str]) -> list[Section]:
    """The sections without their items: what metrics they will have can be told before any work."""
    return [
        Section(one.label, task, (), "panel" if one.label in panel else "task")
        for one, task in zip(asked, chosen, strict=True)
    ]


def filled(section: Section, one: Asked, sources: Sources, candidate: Candidate | None = None) -> Section:
    """The section with its items, as the candidate is asked them."""
    prompt = candidate.prompt if candidate and section.task.kind != "text" else None
    one = prompted.template(prompt, one)
    version = tasks.Version(one.items, one.shots, one.prompt, one.perturbation, one.seed)
    items = tasks.relabel(tasks.load(section.task, sources, version), section.name)
    chat = candidate is not None and candidate.format.template is not None
    task = tasks.asked_as(section.task, version)
    return replace(section, items=items, task=task, prompt=prompt, chat=chat)


def prompted_candidates(
    paper: Paper, asked: Sequence[Asked], sources: Sources, candidates: Mapping[str, Candidate]
) -> dict[str, Candidate]:
    """The candidates with their prompts settled: the paper asks the child its way, and the parent has sections of its
    own, with the same items in the same order.

    Raises ConfigError for a prompt that gives answers away or leaves a question no room.
    """
    settled = dict(candidates)
    if PARENT in settled and any(one.prompt for one in settled.values()):
        known = {one.label: one for one in asked}
        own = {
            one.name: filled(one, known[one.name], sources, settled[PARENT])
            for one in paper.sections
            if one.name in known
        }
        own |= {one.name: replace(one, prompt=settled[PARENT].prompt) for one in paper.sections if one.talks}
        settled[PARENT] = replace(settled[PARENT], own=own)
    for who, one in settled.items():
        for section in paper.sections:
            prompted.check(one.own.get(section.name, section), who, one, paper.window)
    return settled


def domain(documents: Sequence[Document], count: int, tokenizer: Tokenizer, tokens: int) -> Section:
    """`count` held-out documents, the beginning of each."""
    chosen = tasks.select("domain", documents, count)
    clipped = [replace(one, text=clip(tokenizer, one.text, tokens)) for one in chosen]
    items = [
        replace(item, group=one.source)
        for item, one in zip(tasks.texts("domain", clipped), chosen, strict=True)
    ]
    return Section("domain", DOCUMENTS, items, "domain")


def control(wheel: Path, count: int) -> Section:
    """`count` texts that have nothing to do with the documents."""
    task = DOCUMENTS.model_copy(
        update={"name": "control", "about": "Unrelated prose: paragraphs of English novels"}
    )
    return Section("control", task, tasks.texts("control", tasks.passages(wheel, count)), "control")


def taught(
    model: Artifact,
    source: Artifact | RawInput,
    count: int,
    candidates: Mapping[str, Candidate],
    window: int,
    notes: list[str],
) -> Section:
    """Answers of `count` held-out conversations: those that training learned of such rows, where one begins within the
    window for every candidate. Rows whose answers the window ends elsewhere for one candidate than for another are
    passed over, with a note: their bits would be of different texts.

    Raises MaturaError when there is none.
    """
    from matura.train import material
    from matura.train.examples import from_conversation

    data = material.as_trained(model, source)
    held = material.read(source, data).heldout
    rows = [one for one in held if isinstance(one, Conversation) and one.messages]
    chosen: list[Conversation] = []
    uneven = 0
    for row in tasks.select(ANSWERS.name, rows, len(rows)):
        formats = (one.format for one in candidates.values())
        if not all(from_conversation(row, one, window, turns=data.turns)[0] for one in formats):
            continue
        if _ends_alike(row, candidates, window, data.turns):
            chosen.append(row)
        else:
            uneven += 1
        if len(chosen) == count:
            break
    if uneven:
        notes.append(f"{uneven:,} held-out conversations were passed over: {UNEVEN}.")
    if not chosen:
        raise MaturaError(
            f"conversations: of all {uneven:,} held-out rows {UNEVEN}; take shorter prompts or a larger window"
            if uneven
            else "conversations: no held-out row has an answer that begins within the window"
        )
    items = [Item(one.id, "", (), 0, ANSWERS.name, question=prompts.asked(one.messages)) for one in chosen]
    prompt = candidates[CHILD].prompt
    return Section(ANSWERS.name, ANSWERS, items, "taught", prompt, talks=chosen, turns=data.turns)


def _ends_alike(row: Conversation, candidates: Mapping[str, Candidate], window: int, turns: Turns) -> bool:
    """Whether all candidates, each with its prompt around the row, read the same part of its answers."""
    parts = set()
    for one in candidates.values():
        around = row if one.prompt is None else prompts.trained(row, one.prompt, examples=True)
        within, whole = (
            score.answer_rows(one.format, around, length, turns) for length in (window, prompted.ANY_LENGTH)
        )
        parts.add("all" if within == whole else asking.answer_bytes(one.format, within))
    return len(parts) == 1 or 0 in parts  # where nothing fits, `prompted.check` says what to do


def conversations(
    found: Callable[[], list[Conversation]], candidates: Mapping[str, Candidate], count: int, notes: list[str]
) -> list[Conversation]:
    """The parent's own answers, for the divergence; none, with a note, when the two read different tokens."""
    parent, child = candidates[PARENT].format, candidates[CHILD].format
    vocabularies = [one.tokenizer.backend.get_vocab(with_added_tokens=True) for one in (parent, child)]
    if vocabularies[0] != vocabularies[1]:
        notes.append("Parent and child have different tokenizers, so their divergence was not measured.")
        return []
    rows = found()
    if parent.template is None:
        rows = [one for one in rows if not one.messages]
    return tasks.select("replay", rows, count)
