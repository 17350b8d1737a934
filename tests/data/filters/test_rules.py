from matura.data.filters.rules import Rule, RuleFilter, columns
from tests.data.filters.texts import documents


def lengths(texts):
    found = [{"length": float(len(text)), "spaces": float(text.count(" "))} for text in texts]
    return columns(found), [text.strip() for text in texts]


def test_the_first_broken_rule_is_the_reason_and_every_document_is_measured():
    step = RuleFilter("demo", [Rule("length", 3, 8), Rule("spaces", most=1)], lengths)
    outcome = step(documents("ab", "a b c", "abcd", "a very long text"))
    assert [one.id for one in outcome.kept] == ["2"]
    assert [(one.id, one.step, one.reason) for one in outcome.dropped] == [
        ("0", "demo", "length"),
        ("1", "demo", "spaces"),
        ("3", "demo", "length"),
    ]
    assert outcome.dropped[0].detail == "length is 2; at least 3"
    assert outcome.dropped[2].detail == "length is 16; at most 8"
    assert outcome.measures == {"demo.length": [2, 5, 4, 16], "demo.spaces": [0, 2, 0, 3]}


def test_a_bound_itself_passes():
    rule = Rule("share", 0.25, 0.5)
    assert not rule.breaks(0.25)
    assert not rule.breaks(0.5)
    assert rule.breaks(0.2499)
    assert rule.breaks(0.5001)


def test_a_changed_text_keeps_id_source_and_meta():
    step = RuleFilter("demo", [], lengths)
    (before,) = documents(" x ", kind="md")
    (after,) = step([before]).kept
    assert (after.id, after.text, after.source, after.meta) == ("0", "x", "test", {"kind": "md"})
    (unchanged,) = documents("x")
    assert step([unchanged]).kept[0] is unchanged


def test_an_empty_batch_gives_nothing():
    outcome = RuleFilter("demo", [Rule("length", 1)], lengths)([])
    assert (outcome.kept, outcome.dropped, outcome.measures) == ([], [], {})
