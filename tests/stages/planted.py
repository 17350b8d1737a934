"""A small corpus in which everything is planted that curation should find, each piece in a document of its own."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

NAMES = ("Wilhelmina Fotheringay", "Bartholomew Quimby")
VALUES = {
    "EMAIL": "jane.roe@corp-mail.io",
    "PHONE": "+44 20 7946 0958",
    "CARD": "4111 1111 1111 1111",
    "IBAN": "DE89 3704 0044 0532 0130 00",
    "IP": "93.184.216.34",
    "SSN": "219-09-9999",
    "NATIONAL_ID": "54362315K",
    "KEY": "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8",
}
PERSONAL = (
    f"Please write to {VALUES['EMAIL']} or call {VALUES['PHONE']} before noon. The bill goes to the card "
    f"{VALUES['CARD']} and not to IBAN {VALUES['IBAN']} as before. Her SSN is {VALUES['SSN']} and the DNI of the other "
    f"is {VALUES['NATIONAL_ID']} as we were told. The server at {VALUES['IP']} takes the key {VALUES['KEY']} from "
    f"{NAMES[0]} and from {NAMES[1]} only."
)
SPAN_ONLY = (
    f"Write to {VALUES['EMAIL']} and {NAMES[0]} of the big office."  # its id is not the first with the span
)
PROBLEM = (
    "Natalia sold clips to forty eight of her friends in April and then she sold half as many clips in May so how "
    "many clips did she sell altogether"
)


def _listed(words: str) -> list[str]:
    return words.split()


_NOUNS = _listed(
    "river bridge garden teacher village market letter window winter engine forest harbour station doctor farmer "
    "kitchen island painter museum morning mountain library captain sailor tower meadow carpenter valley orchestra "
    "lantern journey holiday college factory orchard weaver bakery castle road stable"
)
_VERBS = _listed(
    "crosses follows remembers paints repairs visits describes measures carries watches finds builds protects leaves "
    "reaches studies answers keeps surprises feeds borrows explains collects admires"
)
_KINDS = _listed(
    "old quiet green narrow famous broken wooden distant early heavy foreign bright empty gentle hidden modern "
    "northern patient royal simple"
)
_WHERE = _listed("near behind under before after without beyond against towards around")
_GERMAN_NOUNS = _listed(
    "Garten Bahnhof Wald Markt Hafen Keller Turm Palast Brunnen Lehrer Bäcker Fluss Berg Zug Brief Koffer Schrank "
    "Himmel Sommer Winter"
)
_GERMAN_VERBS = _listed(
    "sucht findet verlässt beschreibt bewundert erreicht baut malt trägt kennt vergisst verkauft"
)
_GERMAN_KINDS = _listed("alten kleinen grünen leeren fremden stillen neuen dunklen hellen schweren")
_FRENCH = "Le maître et les enfants vont dans la forêt avec le chien. La maison de la rivière est loin de la ville. "
_SPAM = _listed("cheap offer winner discount bonus casino pills prize credit deal click free jackpot voucher")
_INSULTS = _listed("snarfer blorgish grubble vexling mudwit crankle drobnik sploot wharfle gribnose")
"""Made-up words, so that nothing bad stands here."""


def prose(seed: int | str, sentences: int = 12, words: Sequence[str] = ()) -> str:
    """English that passes every filter, unless `words` take the place of some of its nouns."""
    draw = random.Random(f"prose {seed}")

    def thing() -> str:
        return f"{draw.choice(_KINDS)} {draw.choice(words if words and draw.random() < 0.5 else _NOUNS)}"

    made = [
        f"The {thing()} of the {thing()} {draw.choice(_VERBS)} what {draw.choice(('a', 'the', 'no', 'every'))} "
        f"{thing()} {draw.choice(_VERBS)} {draw.choice(_WHERE)} the {thing()}, "
        f"{draw.choice(('for', 'but', 'so', 'and'))} {draw.choice(('a', 'this', 'that'))} {thing()} "
        f"{draw.choice(_VERBS)} it {draw.choice(_WHERE)} {draw.choice(('my', 'your', 'our', 'their'))} {thing()}."
        for _ in range(sentences)
    ]
    return "\n\n".join(" ".join(made[at : at + 4]) for at in range(0, len(made), 4))


def german(seed: int) -> str:
    """German prose."""
    draw = random.Random(f"german {seed}")

    def thing() -> str:
        return f"den {draw.choice(_GERMAN_KINDS)} {draw.choice(_GERMAN_NOUNS)}"

    return " ".join(
        f"{draw.choice(('Die Frau', 'Das Kind', 'Der Hund', 'Ein Mann', 'Die Stadt'))} {draw.choice(_GERMAN_VERBS)} "
        f"{thing()} und {draw.choice(_GERMAN_VERBS)} {draw.choice(('nicht', 'heute', 'dann', 'immer'))} {thing()} mit "
        f"{draw.choice(('mir', 'dir', 'uns', 'euch'))}."
        for _ in range(12)
    )


def spam(seed: int | str) -> str:
    """What the examples call low quality, in sentences."""
    return prose(f"spam {seed}", words=_SPAM)


def insults(seed: int | str) -> str:
    """What the examples call toxic."""
    return prose(f"insults {seed}", words=_INSULTS)


def nearly(text: str) -> str:
    """The text, shorter by its last three words: the Jaccard index is about 0.98."""
    return " ".join(text.split(" ")[:-3]) + " it."


def span() -> str:
    """A passage of more than 50 words that occurs in several documents."""
    return " ".join(prose("span", 6).split())


def find_names(texts: list[str]) -> list[list[tuple[int, int, str]]]:
    """A finder for `pii.names`."""
    return [
        [(text.index(name), text.index(name) + len(name), "NAME") for name in NAMES if name in text]
        for text in texts
    ]


def earlier(folder: Path) -> None:
    """Corpus a: what b is compared with."""
    for number in range(10):
        _write(folder / f"known{number}.txt", prose(f"known {number}"))


def later(folder: Path) -> None:
    """Corpus c: news, and what b has already; two documents that share an address."""
    for number in range(8):
        _write(folder / f"new{number}.txt", prose(f"new {number}"))
    _write(folder / "again.txt", prose("clean 0").upper())
    _write(folder / "nearly.txt", nearly(prose("clean 1")))
    _write(folder / "masked.txt", f"{prose('personal')}\n\n{PERSONAL}")  # b has it without its personal data
    for number in range(2):
        _write(
            folder / f"mail{number}.txt",
            f"{prose(f'mail {number}')}\n\nMail {VALUES['EMAIL']} of the office.",
        )


CLEAN, GERMAN, TABLE, FILLER, PROGRAMS = 12, 3, 6, 12, 3


def web(folder: Path) -> None:
    """The main source of corpus b."""
    for number in range(CLEAN):
        _write(folder / f"clean{number}.txt", prose(f"clean {number}"))
    for number in range(GERMAN):
        _write(folder / f"german{number}.txt", german(number))
    repeated = prose("repeated", 4)
    planted = {
        "stub": f"Ask {VALUES['EMAIL']} about it.",
        "french": _FRENCH * 4 + f"Écrivez à {VALUES['EMAIL']} et à {NAMES[0]}.",
        "numbers": "8123 9917 5512 " * 20,
        "few": prose("few", 1) + " Incomprehensibilities of counterrevolutionary internationalization.",
        "repeated": "\n\n".join([repeated] * 5),
        "braces": prose("braces") + "\nThe value of the table is kept in { and } as you have seen.",
        "lines": _short_lines(),
        "spam": spam("planted") + f" Write to {VALUES['EMAIL']} and {NAMES[1]} of the office today.",
        "insults": insults("planted"),
        "copy": prose("clean 2").replace(",", ""),
        "known": prose("known 3"),
        "nearly-known": nearly(prose("known 4")),
        "leak": f"{prose('leak', 6)}\n{PROBLEM.upper()}?\n{prose('leak end', 6)}",
        "personal": f"{prose('personal')}\n\n{PERSONAL}",
        "span-one": f"{prose('span one')}\n{span()}\n{prose('span end')}",
        "span-two": f"{prose('span two')}\n{span()}\n{prose('span end two')}",
        "span-only": f"{SPAN_ONLY} {span()}",
    }
    for name, text in planted.items():
        _write(folder / f"{name}.txt", text)


def rest(folder: Path) -> None:
    """The other sources of corpus b: a table with copies of web documents, programs, more than its share of filler."""
    rows = [{"text": prose(f"row {number}"), "title": f"Row of {VALUES['EMAIL']}"} for number in range(TABLE)]
    rows.append({"text": nearly(prose("clean 5")), "title": "near copy"})
    _write(folder / "table.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    for number in range(PROGRAMS):
        lines = [f"def task_{number}_{n}(x):\n    return {{x: {n}}} if x else None\n" for n in range(12)]
        _write(folder / "code" / f"program{number}.py", "\n".join(lines))
    _write(folder / "code" / "made.py", "# made by a tool, do not edit\n" + "x = [1, 2, 3]\n" * 30)
    _write(folder / "code" / "signs.py", "x = [((-1, +2), {}, ()), (), [[]], {}, (), ()]\n" * 12)
    for number in range(FILLER):
        _write(folder / "filler" / f"filler{number}.txt", prose(f"filler {number}"))


def examples(folder: Path) -> None:
    """What the classifiers learn from, and the test items."""
    good = [(prose(f"good {number}"), 1) for number in range(30)] + [(german(n + 100), 1) for n in range(15)]
    good += [
        (f"x = {{{n}: [1, 2]}}\ndef f_{n}(x):\n    return {{x: {n}}} if x else None\n" * 6, 1)
        for n in range(15)
    ]
    bad = [(spam(number), 0) for number in range(30)]
    _labelled(folder / "quality.jsonl", [*good, *bad])
    _labelled(
        folder / "toxic.jsonl",
        [*((insults(n), 1) for n in range(30)), *((text, 0) for text, _ in [*good, *bad])],
    )
    _write(folder / "problems.jsonl", json.dumps({"question": PROBLEM, "answer": "72"}) + "\n")


def _short_lines() -> str:
    """Lines of at most 30 characters, each a sentence."""
    draw = random.Random("lines")
    nouns = [noun for noun in _NOUNS if len(noun) < 8]
    forms = (
        "To be a {} with {}.",
        "It is of the {} {}.",
        "{} and {} have it.",
        "That {} was the {}.",
        "By {}, to {}.",
    )
    return "\n".join(f"{draw.choice(forms)}".format(*draw.sample(nouns, 2)).capitalize() for _ in range(24))


def _labelled(path: Path, rows: list[tuple[str, int]]) -> None:
    _write(path, "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
