"""The recipe: named stages in a YAML file, checked as a whole before anything runs.

    stages:
      documents: {stage: curate, path: ~/notes}
      tuned:     {stage: finetune, model: smollm2-135m-instruct, corpus: $documents}
      exam:      {stage: evaluate, model: $tuned, after: documents}

`$name` is the output of another stage; `after` (a name or a list) only orders; `sweep` makes several stages of one,
`repeat` rounds of several, `sizes` other scales of all. Null in the place of a stage leaves it out.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matura.core import config as configs
from matura.core import inputs, left_out, repeat, sizes, sweep, yamlfile
from matura.core.config import Config, Place, did_you_mean
from matura.core.errors import ConfigError
from matura.core.problems import ABOUT_NAMES, NAME, Problems
from matura.core.rounds import Rounds

Modules = Mapping[
    str, Any
]  # kind of stage -> its module: KIND, VERSION, Config, run; estimate and raw_input if it likes
KEYS = ("name", "description", sizes.KEY, sizes.SIZES, "stages")


@dataclass(frozen=True)
class Step:
    """One stage of a recipe, checked."""

    name: str
    kind: str
    module: Any
    config: Config
    uses: dict[str, str]  # input setting -> the stage whose output it is
    outside: dict[str, str]  # input setting -> reference or path from outside the recipe
    after: tuple[str, ...] = ()

    @property
    def needs(self) -> tuple[str, ...]:
        """The stages that must be finished before this one."""
        return tuple(dict.fromkeys((*self.uses.values(), *self.after)))


@dataclass(frozen=True)
class Recipe:
    """Checked stages in the order they run: as in the file, each as early as its needs allow. `rounds` are the groups
    of them that may end early (see `core/course.py`)."""

    name: str
    steps: tuple[Step, ...]
    description: str = ""
    rounds: tuple[Rounds, ...] = ()


def load(path: Path, modules: Modules, overrides: Iterable[str] = (), name: str | None = None) -> Recipe:
    """Read and check a recipe file; `overrides` are `stage.key=value`, `stage=null` and
    `size=NAME`. ConfigError tells all problems."""
    document = yamlfile.read(path)
    problems = Problems(str(path), document.lines)
    for line, message in document.problems:
        problems.say(message, line)
    values = document.values
    if not isinstance(values, dict):
        problems.add((), "expected a mapping with the key 'stages'")
        problems.stop_if_any()
    for key in values.keys() - set(KEYS):
        problems.add((key,), f"unknown key{did_you_mean(key, KEYS)}")
    stages = values.get("stages")
    if not isinstance(stages, dict) or not stages:
        problems.add(("stages",), "expected a mapping of at least one stage: name: {stage: KIND, ...}")
        problems.stop_if_any()
    found, overrides = sizes.read(values, stages, overrides, problems)
    title = _title(name, values.get("name", path.stem), found, problems)
    description = values.get("description") or ""
    if not isinstance(description, str):
        problems.add(("description",), "expected text")

    def checked(
        chosen: dict[str, Any], overrides: Iterable[str], problems: Problems
    ) -> tuple[dict[str, Step], tuple[Rounds, ...]]:
        for assignment in overrides:
            chosen = _override(chosen, assignment, problems)
        written, groups = _written_out(left_out.without(chosen, stages, problems.add), problems)
        return _check_stages(written, modules, problems), groups

    steps, groups = sizes.check(found, stages, overrides, problems, checked)
    problems.stop_if_any()
    return Recipe(title, _ordered(steps), description, groups)


def single(kind: str, assignments: Iterable[str], modules: Modules, name: str = "adhoc") -> Recipe:
    """A recipe of one stage, named after its kind, from `key=value` settings."""
    problems = Problems("")
    if not NAME.fullmatch(name):
        problems.add(("name",), f"{name!r} {ABOUT_NAMES}")
    stages: dict[str, Any] = {kind: {}}
    for assignment in assignments:
        try:
            stages[kind] = configs.set_dotted(stages[kind], assignment)
        except ConfigError as error:
            problems.say(str(error))
    stages[kind]["stage"] = kind
    steps = _check_stages(stages, modules, problems)
    problems.stop_if_any()
    return Recipe(name, tuple(steps.values()))


def schema(modules: Modules) -> dict[str, Any]:
    """The JSON Schema of a recipe, for editors: each stage is told apart by its `stage`."""
    definitions: dict[str, Any] = {}
    for kind, module in modules.items():
        # Two stages may have groups of settings of the same name.
        text = json.dumps(configs.schema(module.Config)).replace('"#/$defs/', f'"#/$defs/{kind}-')
        one = json.loads(text)
        definitions |= {f"{kind}-{name}": group for name, group in one.pop("$defs", {}).items()}
        one["properties"]["stage"] = {
            "const": kind,
            "description": (module.__doc__ or kind).strip().split("\n")[0],
        }
        one["properties"]["after"] = {
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
            "description": "Stages that must be finished first, without being an input.",
        }
        one["properties"][sweep.KEY] = {
            "type": "object",
            "additionalProperties": {"type": "array"},
            "description": "Settings with lists of values: a stage for each combination.",
        }
        repeat.allow_numbers(one["properties"])
        one["required"] = ["stage", *one.get("required", [])]
        definitions[f"stage-{kind}"] = one
    stage = {"oneOf": [{"$ref": f"#/$defs/stage-{kind}"} for kind in modules]}
    definitions["rounds"] = repeat.schema(stage, NAME.pattern)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Matura recipe",
        "type": "object",
        "additionalProperties": False,
        "required": ["stages"],
        "dependentRequired": {sizes.KEY: [sizes.SIZES], sizes.SIZES: [sizes.KEY]},
        "properties": {
            "name": {"type": "string", "pattern": f"^{NAME.pattern}$"},
            "description": {"type": "string"},
            **sizes.schema(NAME.pattern),
            "stages": {
                "type": "object",
                "minProperties": 1,
                "propertyNames": {"pattern": f"^{NAME.pattern}$"},
                "additionalProperties": {"oneOf": [*stage["oneOf"], {"$ref": "#/$defs/rounds"}]},
            },
        },
        "$defs": definitions,
    }


def _title(given: str | None, written: Any, found: sizes.Sizes, problems: Problems) -> str:
    """The name of the run: as it is given on the command line, or as it is written for this size."""
    title = written if given is None else given
    if isinstance(title, str) and NAME.fullmatch(title) and given is None:
        title = found.title(title)
    if not isinstance(title, str) or not NAME.fullmatch(title):
        problems.add(("name",), f"{title!r} {ABOUT_NAMES}")
    return str(title)


def _override(stages: dict[str, Any], assignment: str, problems: Problems) -> dict[str, Any]:
    """`stages` with one `stage.key=value` or `stage=null` set; what is wrong with the assignment itself becomes a
    problem."""
    setting, equals, value = (part.strip() for part in assignment.partition("="))
    name, *keys = setting.split(".")
    if not equals or not (keys or value == "null"):
        example = next(iter(stages))
        wrong = (
            f"expected stage.key=value, for example {example}.key=value, or {example}=null without that stage"
        )
        problems.say(f"'{assignment}': {wrong}")
    elif name not in stages:
        problems.say(f"'{assignment}': unknown stage '{name}'{did_you_mean(name, stages)}")
    elif left_out.is_left_out(stages, (name, *keys)):
        problems.say(f"'{assignment}' would do nothing: that stage is left out here")
    elif not keys:
        stages = {**stages, name: None}
        problems.given.add(("stages", name))
    elif isinstance(stages[name], dict):
        try:
            stages = {**stages, name: configs.set_dotted(stages[name], f"{'.'.join(keys)}={value}")}
            problems.given.add(("stages", name, *keys))
        except ConfigError as error:
            problems.say(str(error))
    return stages


def _written_out(stages: dict[str, Any], problems: Problems) -> tuple[dict[str, Any], tuple[Rounds, ...]]:
    """The stages with rounds and sweeps written out, and the groups of rounds."""
    written = repeat.expand(stages, problems.add)
    problems.origin = written.origin
    made, swept = sweep.expand(written.stages, problems.add)
    problems.origin = {new: written.origin[old] for new, old in swept.items()}
    for group in written.groups:
        if any(full not in made for one in group.rounds for full in one.values()):
            wrong = "uses a stage that is swept; run the recipe under another --name for each value instead"
            problems.add(("stages", group.name), wrong)
    return made, written.groups


def _check_stages(stages: dict[str, Any], modules: Modules, problems: Problems) -> dict[str, Step]:
    """Check every stage alone, then how they refer to each other."""
    steps: dict[str, Step] = {}
    edges: dict[str, list[str]] = {}
    for name, raw in stages.items():
        place = ("stages", name)
        if not NAME.fullmatch(name):
            problems.add(place, f"the name {ABOUT_NAMES}")
        if not isinstance(raw, dict):
            problems.add(place, f"expected settings, {{stage: KIND, ...}}, got {raw!r}")
            continue
        after = _after(raw, stages, place, problems)
        module = _module(raw.get("stage"), modules, place, problems)
        settings = {key: value for key, value in raw.items() if key not in ("stage", "after")}
        edges[name] = [*_uses(settings, module, place, stages, modules, problems), *after]
        if module:
            config, wrong = configs.check(module.Config, settings)
            for problem in wrong:
                problems.add((*place, *problem.place), problem.message)
            if config is not None:
                steps[name] = _step(name, raw["stage"], module, config, after)
    cycle = _cycle(edges)
    if cycle:
        problems.add(("stages", cycle[0]), f"the stages wait for each other: {' -> '.join(cycle)}")
    return steps


def _uses(
    settings: dict[str, Any],
    module: Any,
    place: Place,
    stages: dict[str, Any],
    modules: Modules,
    problems: Problems,
) -> list[str]:
    """The stages that `$name`s in the settings refer to, each checked. (Unknown settings are reported elsewhere.)"""
    if module is None:
        named = [((key,), value[1:], None) for key, value in settings.items() if str(value).startswith("$")]
        for at, name, _ in named:
            _check_use((*place, *at), name, None, stages, modules, problems)
        return [name for _, name, _ in named]
    found = list(inputs.uses(module.Config, settings))
    for where, name, kinds in found:
        if kinds is not None:
            _check_use((*place, *where), name, kinds, stages, modules, problems)
        elif name in stages:
            problems.add(
                (*place, *where), f"is not an input{_inputs_text(configs.input_kinds(module.Config))}"
            )
    return [name for _, name, _ in found]


def _step(name: str, kind: str, module: Any, config: Config, after: tuple[str, ...]) -> Step:
    given = inputs.inputs_of(config)
    uses = {key: text[1:] for key, text in given.items() if text.startswith("$")}
    outside = {key: os.path.expanduser(text) for key, text in given.items() if key not in uses}
    return Step(name, kind, module, inputs.with_inputs(config, outside), uses, outside, after)


def _after(raw: dict[str, Any], stages: dict[str, Any], place: Place, problems: Problems) -> tuple[str, ...]:
    value = raw.get("after")
    names = [] if value is None else value if isinstance(value, list) else [value]
    good = []
    for name in names:
        if not isinstance(name, str):
            problems.add((*place, "after"), f"expected the name of a stage or a list of names, got {name!r}")
        elif name.removeprefix("$") not in stages:
            problems.add((*place, "after"), f"there is no stage '{name}'{did_you_mean(name, stages)}")
        else:
            good.append(name.removeprefix("$"))
    return tuple(good)


def _module(kind: Any, modules: Modules, place: Place, problems: Problems) -> Any:
    if kind is None:
        problems.add(place, f"has no 'stage'; add one of: {', '.join(sorted(modules))}")
    elif not isinstance(kind, str) or kind not in modules:
        problems.add((*place, "stage"), f"unknown kind of stage {kind!r}{did_you_mean(str(kind), modules)}")
    else:
        return modules[kind]
    return None


def _check_use(
    place: Place,
    name: str,
    kinds: tuple[str, ...] | None,
    stages: dict[str, Any],
    modules: Modules,
    problems: Problems,
) -> None:
    """Is `$name` a stage, and does it make what is wanted here? `kinds` is None when that is not known."""
    if name not in stages:
        problems.add(place, f"there is no stage '{name}'{did_you_mean(name, stages)}")
        return
    made_by = stages[name].get("stage") if isinstance(stages[name], dict) else None
    if kinds is None or not isinstance(made_by, str) or made_by not in modules:
        return
    made = modules[made_by].KIND
    if made not in kinds:
        wanted = " or ".join(inputs.one_of("path" if kind == "raw" else kind) for kind in kinds)
        problems.add(place, f"expected {wanted}, but ${name} makes {inputs.one_of(made)}")


def _inputs_text(kinds: Mapping[str, Any]) -> str:
    return f"; the inputs of this stage are: {', '.join(kinds)}" if kinds else "; this stage has no inputs"


def _cycle(edges: Mapping[str, list[str]]) -> list[str]:
    """A cycle as [a, b, a], or nothing."""
    left = dict(edges)
    while free := [name for name, needs in left.items() if not any(need in left for need in needs)]:
        for name in free:
            del left[name]
    if not left:
        return []
    path = [next(iter(left))]  # whatever is left waits for something that is left
    while True:
        need = next(need for need in edges[path[-1]] if need in left)
        if need in path:
            return [*path[path.index(need) :], need]
        path.append(need)


def _ordered(steps: dict[str, Step]) -> tuple[Step, ...]:
    """File order, except that a stage waits for its needs. The stages hold no cycle."""
    order: dict[str, Step] = {}
    while len(order) < len(steps):
        ready = next(s for s in steps.values() if s.name not in order and set(s.needs) <= order.keys())
        order[ready.name] = ready
    return tuple(order.values())
