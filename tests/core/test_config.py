"""Settings: every error at once and in words, dotted overrides, inputs, `--help` lines, schema."""

from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError, field_validator, model_validator

from matura.core import config, inputs, yamlfile
from matura.core.config import Config, Input
from matura.core.errors import ConfigError


class Optimizer(Config):
    lr: float = Field(1e-3, gt=0, description="Peak learning rate.")
    betas: tuple[float, float] = (0.9, 0.95)


class Training(Config):
    corpus: Annotated[str, Input("corpus", "conversations")] = Field(description="What to\n train on.")
    replay: Annotated[str | None, Input("conversations")] = None
    other: Annotated[str, Input("raw")] | None = None
    method: Literal["lora", "full"] = "lora"
    steps: int = Field(100, ge=1, description="Updates.")
    bits: int | Literal["auto"] = "auto"
    stop: bool = False
    optim: Optimizer = Optimizer()
    rates: list[Optimizer] = Field(default_factory=list)
    weights: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _not_thirteen(self) -> "Training":
        if self.steps == 13:
            raise ValueError("steps cannot be 13; take 14")
        return self


def wrong(**values: object) -> str:
    with pytest.raises(ConfigError) as caught:
        config.parse(Training, {"corpus": "docs", **values}, "tuned")
    return str(caught.value)


class Named(Config):
    name: str = ""
    size: int = 1

    @field_validator("name", "size")
    @classmethod
    def _known(cls, given: str | int) -> str | int:
        if given == 3:  # a setting that is read as text
            raise ValueError(f"no such thing, got {str(given)!r}")
        raise ValueError(f"no such thing, got {given!r}" if isinstance(given, str) else "too large")


def test_what_was_given_is_said_once():
    with pytest.raises(ConfigError) as caught:
        config.parse(Named, {"name": "x", "size": 2}, "tuned")
    assert str(caught.value).splitlines()[1:] == [
        "  name: no such thing, got 'x'",
        "  size: too large (got 2)",
    ]
    with pytest.raises(ConfigError, match=r"no such thing, got '3'$"):
        config.parse(Named, {"size": 3}, "tuned")


def test_good_values_are_typed_and_frozen():
    parsed = config.parse(Training, {"corpus": "docs", "optim": {"lr": 1, "betas": [0.5, 0.6]}}, "tuned")
    assert parsed.optim == Optimizer(lr=1.0, betas=(0.5, 0.6))
    with pytest.raises(ValidationError):
        parsed.steps = 3


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"step": 3}, "tuned: step: unknown setting; did you mean 'steps'?"),
        ({"zzz": 3}, "tuned: zzz: unknown setting; known: bits, corpus, method"),
        ({"optim": {"beta": 3}}, "tuned: optim.beta: unknown setting; did you mean 'betas'?"),
        ({"steps": "many"}, 'tuned: steps: expected a whole number, got "many"'),
        ({"steps": 0}, "tuned: steps: expected greater than or equal to 1, got 0"),
        ({"steps": True}, "tuned: steps: expected a number, got true"),
        ({"optim": {"lr": False}}, "tuned: optim.lr: expected a number, got false"),
        ({"stop": "maybe"}, 'tuned: stop: expected true or false, got "maybe"'),
        (
            {"method": "lorra"},
            "tuned: method: expected 'lora' or 'full', got \"lorra\"; did you mean 'lora'?",
        ),
        ({"bits": "x"}, "tuned: bits: expected a whole number or 'auto', got \"x\""),
        ({"optim": 3}, "tuned: optim: expected a group of settings, got 3"),
        ({"optim": {"lr": float("nan")}}, "tuned: optim.lr: expected a finite number, got NaN"),
        ({"optim": {"betas": [1, "x"]}}, 'tuned: optim.betas[1]: expected a number, got "x"'),
        ({"rates": [{}, {"lr": -1}]}, "tuned: rates[1].lr: expected greater than 0, got -1"),
        ({"weights": {"wiki": "much"}}, 'tuned: weights.wiki: expected a number, got "much"'),
        ({"corpus": ["docs"]}, 'tuned: corpus: expected text, got ["docs"]'),
        ({"steps": 13}, "tuned: steps cannot be 13; take 14"),
    ],
)
def test_each_error_names_field_expectation_and_value(values, expected):
    assert wrong(**values).startswith(expected)


def test_all_errors_come_at_once():
    with pytest.raises(ConfigError) as caught:
        config.parse(Training, {"steps": "x", "methd": "lora", "optim": {"lr": 0}}, "tuned")
    lines = str(caught.value).splitlines()
    assert lines[0] == "tuned: 4 problems"
    assert {line.split(":")[0].strip() for line in lines[1:]} == {"steps", "methd", "optim.lr", "corpus"}


def test_long_values_are_cut():
    assert len(wrong(steps="x" * 500)) < 150


def test_numbers_may_be_given_as_text_settings():
    assert config.parse(Training, {"corpus": 2024}, "").corpus == "2024"


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("steps=3", {"steps": 3, "optim": {"lr": 1}}),
        ("optim.lr=1e-3", {"steps": 1, "optim": {"lr": 1e-3}}),
        ("a.b.c=[x, 2]", {"steps": 1, "optim": {"lr": 1}, "a": {"b": {"c": ["x", 2]}}}),
        ("path=~/notes", {"steps": 1, "optim": {"lr": 1}, "path": "~/notes"}),
        ("stop=a=b", {"steps": 1, "optim": {"lr": 1}, "stop": "a=b"}),
        ("steps=", {"steps": None, "optim": {"lr": 1}}),
        ("name=no", {"steps": 1, "optim": {"lr": 1}, "name": "no"}),
    ],
)
def test_set_dotted(assignment, expected):
    values = {"steps": 1, "optim": {"lr": 1}}
    assert config.set_dotted(values, assignment) == expected
    assert values == {"steps": 1, "optim": {"lr": 1}}


@pytest.mark.parametrize(
    "assignment", ["steps", "=3", "a..b=3", "steps.x=3", "x=[1", "x=*a", "x={a: 1, a: 2}"]
)
def test_set_dotted_refuses(assignment):
    with pytest.raises(ConfigError, match=r"expected key=value|not a group|YAML|twice"):
        config.set_dotted({"steps": 1}, assignment)


def test_inputs_and_settings():
    parsed = Training(corpus="$docs", other="~/x")
    assert inputs.inputs_of(parsed) == {"corpus": "$docs", "other": "~/x"}
    assert config.input_kinds(Training)["corpus"] == ("corpus", "conversations")
    assert not {"corpus", "replay", "other"} & inputs.settings_of(parsed).keys()
    assert inputs.settings_of(parsed)["optim"] == {"lr": 0.001, "betas": [0.9, 0.95]}


def test_describe_names_type_default_and_description():
    text = "\n".join(config.describe(Training))
    assert "corpus  (corpus or conversations; required)\n      What to train on." in text
    assert "optim.lr  (number; default 0.001)\n      Peak learning rate." in text
    assert "other  (path; default none)" in text
    assert "method  ('lora' | 'full'; default \"lora\")" in text


def test_schema_is_closed_and_marks_inputs():
    made = config.schema(Training)
    assert made["additionalProperties"] is False
    assert made["properties"]["corpus"]["x-input"] == ["corpus", "conversations"]
    assert made["required"] == ["corpus"]


def test_yaml_scalars_follow_version_1_2():
    text = "[no, on, 2024-01-01, 1e-3, 1_000, 010, 5:30, 0x1f, true, null, -.5]"
    values = ["no", "on", "2024-01-01", 1e-3, 1000, "010", "5:30", 31, True, None, -0.5]
    assert yamlfile.parse_value(text) == values


def test_a_value_on_the_command_line_has_no_comment():
    assert yamlfile.parse_value("#### -?[0-9]+$") == "#### -?[0-9]+$"
    assert yamlfile.parse_value("a #b") == "a #b"
    assert yamlfile.parse_value("'a #b'") == "a #b"
    assert yamlfile.parse_value("[a, '#b']") == ["a", "#b"]


def test_yaml_knows_its_lines():
    document = yamlfile.parse("a: 1\nb:\n  c:\n    - x\n    - y\n", "f")
    assert document.lines[("b",)] == 2
    assert document.lines[("b", "c")] == 3
    assert document.lines[("b", "c", 1)] == 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [1", "f:1: is not valid YAML"),
        ("a: 1\n b: 2", "f:2: is not valid YAML"),
        ("a: &x [*x]", r"f:1: \*x stands inside itself"),
        ("[" * 40 + "]" * 40, "levels deep"),
        ("x: [" + "1, " * 10_000 + "]", "more than 10,000 values"),
        ("a:\n\tb: 1", "f:2: is not valid YAML: a line is indented by a tab; YAML is indented by spaces"),
        ("a: \x07", "f: is not valid YAML"),
    ],
)
def test_yaml_refuses(text, expected):
    with pytest.raises(ConfigError, match=expected):
        yamlfile.parse(text, "f")


def test_yaml_brings_in_the_keys_of_another_mapping():
    text = "a: &m\n  x: 1\n  y: {deep: 2}\nb:\n  x: 3\n  <<: *m\n  z: 4\nc: {<<: *m}\n"
    document = yamlfile.parse(text, "f")
    assert document.values["b"] == {"x": 3, "y": {"deep": 2}, "z": 4}  # what stands beside it goes before
    assert document.values["c"] == document.values["a"] == {"x": 1, "y": {"deep": 2}}
    assert not document.problems
    assert (document.lines["b", "x"], document.lines["b", "y"], document.lines["b", "z"]) == (5, 6, 7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &m {x: 1}\nb: {<<: *m, <<: *m}", "'<<' is written twice"),
        ("b: {<<: 3}", "takes one mapping"),
        ("a: &m {x: 1}\nb: {<<: [*m]}", "takes one mapping"),
    ],
)
def test_yaml_says_what_cannot_be_brought_in(text, message):
    [(_, told)] = yamlfile.parse(text, "f").problems
    assert message in told


def test_yaml_refuses_an_alias_bomb_before_building_it():
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12))
    with pytest.raises(ConfigError, match="more than 10,000 values"):
        yamlfile.parse(bomb, "f")


def test_yaml_allows_ordinary_aliases():
    assert yamlfile.parse("a: &m {x: 1}\nb: *m", "f").values == {"a": {"x": 1}, "b": {"x": 1}}


def test_yaml_builds_plain_data_only():
    document = yamlfile.parse("a: !!python/object/apply:os.getcwd []\nb: !!int x\nc: !!binary aGk=", "f")
    assert document.values == {"a": None, "b": None, "c": None}
    assert [line for line, _ in document.problems] == [1, 2, 3]


def test_yaml_files_are_bounded(tmp_path):
    path = tmp_path / "big.yaml"
    path.write_bytes(b"#" * (yamlfile.MAX_BYTES + 1))
    with pytest.raises(ConfigError, match="larger than"):
        yamlfile.read(path)
    path.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(ConfigError, match=r"big.yaml:2: is not UTF-8"):
        yamlfile.read(path)
    with pytest.raises(ConfigError, match="no such file"):
        yamlfile.read(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="a folder"):
        yamlfile.read(tmp_path)


class Warm(Config):
    kind: Literal["warm"] = "warm"
    degrees: int = 20
    damp: bool = True


class Cold(Config):
    kind: Literal["cold"] = "cold"
    degrees: int = -5


class Weather(Config):
    now: Annotated[Warm | Cold, Field(discriminator="kind")] = Warm(degrees=30)


def test_a_group_of_another_kind_takes_nothing_from_the_default():
    assert config.parse(Weather, {"now": {"damp": False}}, "test").now == Warm(degrees=30, damp=False)
    assert config.parse(Weather, {"now": {"kind": "cold"}}, "test").now == Cold(degrees=-5)
    stored = Weather(now=Cold(degrees=-9)).model_dump(mode="json")
    assert config.parse(Weather, stored, "test").now == Cold(degrees=-9)


class Oven(Config):
    kind: Literal["gas", "electric"] = "gas"
    degrees: int = 180


class Bakery(Config):
    oven: Oven = Oven(kind="electric", degrees=240)


def test_a_setting_called_kind_changes_only_that():
    assert config.parse(Bakery, {"oven": {"kind": "gas"}}, "test").oven == Oven(kind="gas", degrees=240)


class Sieve(Config):
    use: Literal["on", "off"] = "off"
    mesh: int = 3


class Kitchen(Config):
    sieve: Sieve = Sieve()
    tap: Sieve = Sieve(use="on")


def test_a_group_that_is_off_is_not_given_settings_unnoticed():
    for values in ({"use": "on", "mesh": 5}, {"use": "off", "mesh": 5}):
        assert config.parse(Kitchen, {"sieve": values}, "test").sieve == Sieve.model_validate(values)
    assert config.parse(Kitchen, {"tap": {"mesh": 5}, "sieve": {}}, "test").tap.mesh == 5
    assert config.parse(Kitchen, Kitchen().model_dump(mode="json"), "test") == Kitchen()
    with pytest.raises(ConfigError, match=r"test: sieve: mesh would do nothing.*give use=on too"):
        config.parse(Kitchen, {"sieve": {"mesh": 5}}, "test")


class Menu(Config):
    dishes: tuple[Literal["soup", "salad"], ...] = Field(("soup",), min_length=1)


def test_a_list_of_wrong_items_is_not_called_empty():
    with pytest.raises(ConfigError) as caught:
        config.parse(Menu, {"dishes": ["nails"]}, "test")
    assert str(caught.value) == "test: dishes[0]: expected 'soup' or 'salad', got \"nails\""
    with pytest.raises(ConfigError, match="at least 1 item"):
        config.parse(Menu, {"dishes": []}, "test")


def test_settings_that_are_not_the_default_are_named_in_the_order_asked_for() -> None:
    class Group(Config):
        depth: int = 2
        names: list[str] = Field(default_factory=list)
        width: int = 3

    assert Group().changed("width", "depth", "names") == []
    assert Group(depth=5, width=4, names=[]).changed("width", "names", "depth") == ["width", "depth"]
    assert Group(depth=5, names=["a"]).changed("names") == ["names"]
