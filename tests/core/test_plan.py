"""The table of a plan."""

from matura.core.plan import Estimate, Planned, duration, table


def test_details_of_what_will_run_stand_below_the_table() -> None:
    estimate = Estimate(seconds=4000, memory_bytes=3 << 20, note="small", details=("a line", "another"))
    text = table(
        [Planned("kept", "reuse", "unchanged", estimate), Planned("made", "run", "never run", estimate)]
    )
    assert text.splitlines()[1].split() == ["kept", "reuse", "-", "-", "-", "unchanged"]
    assert text.endswith("\n\nmade\n  a line\n  another")
    assert text.count("a line") == 1  # what is reused costs nothing and says nothing


def test_what_is_not_known_is_not_called_nothing() -> None:
    rows = [
        Planned("fetched", "run", "never run", Estimate(note="fetched first")),
        Planned("free", "run", "never run", Estimate(memory_bytes=1000)),
    ]
    lines = [line.split() for line in table(rows).splitlines()]
    assert lines[1][:5] == ["fetched", "run", "?", "?", "?"]
    assert lines[2][:4] == ["free", "run", "0", "s"]
    assert lines[3][:5] == ["total", "2", "of", "2", "0"]


def test_durations_are_for_people() -> None:
    assert [duration(value) for value in (0, 4.23, 50, 720, 11_100, 8e5, 2.49e9)] == [
        "0 s",
        "4.2 s",
        "50 s",
        "12 min",
        "3 h 05 min",
        "9 days",
        "78.9 years",
    ]
