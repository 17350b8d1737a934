import pytest

from matura.core.errors import FormatError
from matura.evaluate import ifeval
from matura.evaluate.instructions import CHECKS

GERMAN = "Der Hund läuft schnell durch den Wald und sucht seinen alten Ball."
ENGLISH = "The dog runs quickly through the forest and looks for its old ball."

# kind, arguments, answers that follow, answers that do not
CASES = [
    (
        "keywords:existence",
        {"keywords": ["Ball", "dog."]},
        ["a BALL of my dog."],
        ["a ball of my dog", "dog."],
    ),
    (
        "keywords:frequency",
        {"keyword": "tree", "frequency": 2, "relation": "at least"},
        ["Trees and a TREE", "tree tree tree"],
        ["one tree"],
    ),
    (
        "keywords:frequency",
        {"keyword": "tree", "frequency": 2, "relation": "less than"},
        ["one tree", "none"],
        ["tree, tree"],
    ),
    (
        "keywords:forbidden_words",
        {"forbidden_words": ["rock", "c++"]},
        ["A rocket"],
        ["The Rock.", "I like C++"],
    ),
    (
        "keywords:letter_frequency",
        {"letter": "E", "let_frequency": 3, "let_relation": "at least"},
        ["Eee"],
        ["See"],
    ),
    (
        "keywords:letter_frequency",
        {"letter": "#", "let_frequency": 1, "let_relation": "less than"},
        ["none"],
        ["# title"],
    ),
    ("language:response_language", {"language": "de"}, [GERMAN], [ENGLISH, "ja"]),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": "at least"},
        ["One. Two!", "Who? Me. You."],
        ["Only Dr. Smith, e.g. him."],
    ),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": "less than"},
        ["Just one"],
        ["One. Two."],
    ),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        ["one\n***\ntwo", "***\none *** two\n***"],
        ["one", "one\n***\n***\ntwo", "a *** b *** c"],
    ),
    (
        "length_constraints:number_words",
        {"num_words": 3, "relation": "at least"},
        ["one two-three"],
        ["one two!"],
    ),
    ("length_constraints:number_words", {"num_words": 3, "relation": "less than"}, ["one two"], ["a b c"]),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Elm"},
        ["Trees.\n\nelm, oak", 'Trees.\n\n"Elm" is one'],
        ["Elm\n\ntree", "Trees.\n\nElms are tall", "Elm", "a\n\nelm\n\nc"],
    ),
    (
        "detectable_content:number_placeholders",
        {"num_placeholders": 2},
        ["[name] of [street]"],
        ["[name]", "[]".replace("]", "")],
    ),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.P.S"},
        ["Bye.\nP.P.S call me", "p. p.s. call"],
        ["Bye.\nP.S. call me"],
    ),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, ["p. s. bye"], ["ps bye"]),
    (
        "detectable_format:number_bullet_lists",
        {"num_bullets": 2},
        ["* one\n* two", "- one\n  * two", "Here:\n- a\n- b"],
        ["* one", "* a\n* b\n* c", "**a**\n**b**"],
    ),
    (
        "detectable_format:constrained_response",
        {},
        ["My answer is maybe.", "So: My answer is no."],
        ["Maybe."],
    ),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        ["*a* and *b c*", "**a** and *b*"],
        ["*a*", "** ** and *a*", "**bold**"],
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        ["Section 1\na\nSection 2\nb"],
        ["Section 1\na", "section 1\nsection 2", "Section one Section two"],
    ),
    (
        "detectable_format:json_format",
        {},
        ['{"a": [1]}', '```json\n{"a": 1}\n```', "[]"],
        ["a: 1", '{"a": 1} there', "[" * 100_000],
    ),
    ("detectable_format:title", {}, ["<<My day>>\nIt rained"], ["<My day>", "<<>>", "<< >>", "<<a\nb>>"]),
    (
        "combination:two_responses",
        {},
        ["one\n******\ntwo", "******one******two"],
        ["one", "one******one", "a******b******c", "a************b"],
    ),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say hi. "}, ["say hi.\nHi"], ["Hi", "Sure: say hi."]),
    ("startend:end_checker", {"end_phrase": "Hope so."}, ["Yes. hope so.", '"Hope so."'], ["Hope so. Bye"]),
    ("startend:quotation", {}, ['"all of it"', ' "" '], ['"', '"half', 'a "b"']),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        ["I say NO", "COVID-19 in the U.S", "I'm sure I'd go"],
        ["STOP now", "None Here"],
    ),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "less than"},
        ["STOP now"],
        ["STOP NOW"],
    ),
    ("change_case:english_capital", {}, [ENGLISH.upper(), "YES!"], [ENGLISH, GERMAN.upper(), "Yes"]),
    ("change_case:english_lowercase", {}, [ENGLISH.lower()], [ENGLISH, GERMAN.lower(), ENGLISH.upper()]),
    ("punctuation:no_comma", {}, ["one and two"], ["one, two"]),
]


def test_there_are_the_25_kinds_and_each_is_tested():
    assert len(CHECKS) == 25
    assert {kind for kind, *_ in CASES} == set(CHECKS)


@pytest.mark.parametrize(("kind", "arguments", "right", "wrong"), CASES)
def test_a_kind_knows_right_from_wrong(kind, arguments, right, wrong):
    one = ifeval.instruction(kind, arguments, "row 1")
    assert [one.followed(answer) for answer in right] == [True] * len(right)
    assert [one.followed(answer) for answer in wrong] == [False] * len(wrong)


@pytest.mark.parametrize(("kind", "arguments"), [case[:2] for case in CASES])
def test_an_empty_answer_follows_nothing(kind, arguments):
    one = ifeval.instruction(kind, arguments, "row 1")
    assert not one.followed(" \n")
    assert not one.followed_loosely(" \n\n")


def test_loosely_the_first_line_the_last_line_and_stars_do_not_count():
    quotation = ifeval.instruction("startend:quotation", {}, "row 1")
    for answer in ('Sure:\n"a"', '"a"\nBye', '*"a"*', 'Sure:\n*"a"*\nBye'):
        assert not quotation.followed(answer)
        assert quotation.followed_loosely(answer)
    assert not quotation.followed_loosely('Sure:\nhere:\n"a"\nBye\nthere')


def row(kinds, kwargs, key=7):
    return {"key": key, "prompt": "Do it.", "instruction_id_list": kinds, "kwargs": kwargs}


def test_the_four_figures_by_hand():
    both = ["punctuation:no_comma", "startend:quotation"]
    (prompt,), left_out = ifeval.read([row(both, [{}, {}])])
    assert (prompt.id, left_out) == ("7", [])
    followed = ifeval.grade(prompt, 'Sure:\n"no commas"')
    assert followed == ifeval.Followed(strict=(True, False), loose=(True, True))
    assert followed.figures() == {
        "prompt_strict": (0, 1),
        "instruction_strict": (1, 2),
        "prompt_loose": (1, 1),
        "instruction_loose": (2, 2),
    }


def test_arguments_that_are_null_are_those_of_other_kinds():
    (prompt,), _ = ifeval.read([row(["punctuation:no_comma"], [{"num_words": None, "relation": None}])])
    assert prompt.instructions == (ifeval.Instruction("punctuation:no_comma", {}),)


def test_prompts_in_a_language_that_cannot_be_told_are_left_out_by_name():
    rows = [row(["language:response_language"], [{"language": code}], code) for code in ("de", "sw")]
    prompts, left_out = ifeval.read(rows)
    assert [prompt.id for prompt in prompts] == ["de"]
    assert left_out == ["sw"]


@pytest.mark.parametrize(
    ("kinds", "kwargs", "message"),
    [
        (["punctuation:no_coma"], [{}], "row 1: there is no instruction 'punctuation:no_coma'; did you mean"),
        (["punctuation:no_comma"], [{"words": 1}], "takes no arguments, found \\['words'\\]"),
        (["keywords:existence"], [{}], "takes \\['keywords'\\], found \\[\\]"),
        (["keywords:existence"], [{"keywords": "a"}], "keywords is 'a', which is no list of texts"),
        (["keywords:existence"], [{"keywords": []}], "which is no list of texts"),
        (["length_constraints:number_paragraphs"], [{"num_paragraphs": True}], "which is no whole number"),
        (
            ["length_constraints:number_words"],
            [{"num_words": 1, "relation": "exactly"}],
            "relation is 'exactly', which is no 'at least' or 'less than'",
        ),
        (["punctuation:no_comma"], [{}, {}], "row 1: 1 instructions with 2 kwargs"),
        ([], [], "row 1: 0 instructions"),
        ("punctuation:no_comma", [{}], "expected `instruction_id_list`, a list"),
        (["punctuation:no_comma"], ["no"], "expected arguments as an object"),
    ],
)
def test_wrong_rows_are_told(kinds, kwargs, message):
    with pytest.raises(FormatError, match=message):
        ifeval.read([row(kinds, kwargs)])
