"""Problems of a recipe: each with its line, in the order of the file, told once."""

import pytest

from matura.core.errors import ConfigError
from matura.core.problems import Problems

LINES = {(): 1, ("stages",): 2, ("stages", "a"): 3, ("stages", "a", "list"): 4, ("stages", "a", "list", 0): 5}


def told(problems: Problems) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        problems.stop_if_any()
    return str(caught.value).splitlines()


def test_a_problem_stands_on_the_nearest_line_above_it() -> None:
    problems = Problems("f.yaml", LINES)
    problems.add(("stages", "a", "list", 0), "x")
    assert told(problems) == ["f.yaml:5: a.list[0]: x"]
    problems.add(("stages", "a", "group", "key"), "y")
    problems.add(("size",), "z")
    problems.say("w", 9)
    assert [line.strip() for line in told(problems)] == [
        "f.yaml: 4 problems",
        "f.yaml:1: size: z",
        "f.yaml:3: a.group.key: y",
        "f.yaml:5: a.list[0]: x",
        "f.yaml:9: w",
    ]


def test_a_list_from_the_command_line_is_not_looked_for_in_the_file() -> None:
    problems = Problems("f.yaml", LINES, given={("stages", "a", "list")})
    problems.add(("stages", "a", "list", 0), "x")
    problems.add(("stages", "a"), "y")
    assert told(problems)[1:] == ["  on the command line: a.list[0]: x", "  f.yaml:3: a: y"]


def test_an_unknown_group_from_the_command_line_is_not_looked_for_in_the_file() -> None:
    problems = Problems(
        "f.yaml", LINES, given={("stages", "a", "grup", "key"), ("stages", "a", "list", "key")}
    )
    problems.add(("stages", "a", "grup"), "x")
    problems.add(("stages", "a", "list"), "y")
    assert told(problems)[1:] == ["  on the command line: a.grup: x", "  f.yaml:4: a.list: y"]


def test_stages_of_rounds_and_sweeps_stand_where_they_are_written() -> None:
    problems = Problems(
        "f.yaml", LINES, origin={"a-2-b": ("stages", "a", "stages", "b"), "a-rank2": ("stages", "a")}
    )
    for _ in range(2):
        problems.add(("stages", "a-2-b", "n"), "x")
    assert told(problems) == ["f.yaml:3: a.stages.b.n: x"]
    problems.add(("stages", "a-rank2", "list"), "y")
    assert told(problems)[-1] == "  f.yaml:4: a-rank2.list: y"


def test_nothing_wrong_is_told_of_nothing_and_not_of_what_was_tried_aside() -> None:
    problems = Problems("f.yaml", LINES)
    problems.aside().add(("stages", "a"), "x")
    problems.stop_if_any()
