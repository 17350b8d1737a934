import pytest

from matura.evaluate.passages import sentences


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("*** --- ...", 0),
        ("No end", 1),
        ("One. Two? Three!", 3),
        ("This is it. and small letters too.", 2),
        ("Dr. Smith met Mrs. Jones.", 1),
        ("It was J. Smith. He left.", 2),
        ("It was I. You left.", 2),
        ("See e.g. the sun.", 1),
        ("He lives in the U.S. The house is big.", 2),
        ("He lives in the U.S. with us.", 1),
        ("Apples, pears, etc. are fruit.", 1),
        ("See No. 5. I said no. Then I left.", 3),
        ('"Is it you?" she asked.', 2),
        ('He said "Go." Then he went.', 2),
        ("It costs 3.50 dollars. Cheap!", 2),
        ("1. One thing.\n2. Another thing.", 2),
        ("**Bold end.** Next one.", 2),
        ("A line without an end\nand one with it.", 1),
        ("Wait... what?", 2),
    ],
)
def test_sentences_are_counted(text, count):
    assert sentences(text) == count
