"""The 25 kinds of instructions of IFEval that a program can verify (Zhou et al. 2023, arXiv:2311.07911, table 1).

Each is a function `(answer, *, arguments) -> followed?`; names of kinds and arguments are those of the data set.
Where the paper leaves a unit open, this is meant: words are runs of letters, digits and underscores; paragraphs are
what stands between `***` (or, where a paragraph's first word is asked for, between empty lines); sections begin with
their word and a number.

Sentences, words in capitals and languages are told by rules and a detector of our own; the reference uses nltk and
langdetect, which may differ on single answers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Literal

from matura.evaluate.passages import sentences

Relation = Literal["at least", "less than"]
Check = Callable[..., bool]
CHECKS: dict[str, Check] = {}
"""By kind, such as `keywords:existence`."""

YES_NO_MAYBE = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


def _kind(name: str) -> Callable[[Check], Check]:
    def register(check: Check) -> Check:
        CHECKS[name] = check
        return check

    return register


def compares(count: int, relation: Relation, bound: int) -> bool:
    """Whether a count is `at least` the bound, or `less than` it."""
    return count >= bound if relation == "at least" else count < bound


def _occurrences(word: str, text: str) -> int:
    """How often a word or a part of one occurs, whatever its capitals."""
    return len(re.findall(re.escape(word.strip()), text, re.IGNORECASE))


@_kind("keywords:existence")
def _has_keywords(answer: str, *, keywords: Sequence[str]) -> bool:
    return all(_occurrences(word, answer) for word in keywords)


@_kind("keywords:frequency")
def _keyword_count(answer: str, *, keyword: str, frequency: int, relation: Relation) -> bool:
    return compares(_occurrences(keyword, answer), relation, frequency)


@_kind("keywords:forbidden_words")
def _avoids_words(answer: str, *, forbidden_words: Sequence[str]) -> bool:
    """Whole words only: "rocket" does not break the ban of "rock"."""
    return not any(
        re.search(rf"(?<!\w){re.escape(word.strip())}(?!\w)", answer, re.IGNORECASE)
        for word in forbidden_words
    )


@_kind("keywords:letter_frequency")
def _letter_count(answer: str, *, letter: str, let_frequency: int, let_relation: Relation) -> bool:
    return compares(answer.lower().count(letter.lower()), let_relation, let_frequency)


@_kind("language:response_language")
def _in_language(answer: str, *, language: str) -> bool:
    return detected(answer) == language


@_kind("length_constraints:number_sentences")
def _sentence_count(answer: str, *, num_sentences: int, relation: Relation) -> bool:
    return compares(sentences(answer), relation, num_sentences)


@_kind("length_constraints:number_paragraphs")
def _paragraph_count(answer: str, *, num_paragraphs: int) -> bool:
    """Dividers at the very beginning and end are allowed, two with nothing between them are not."""
    return _filled(answer.split("***")) == num_paragraphs


@_kind("length_constraints:number_words")
def _word_count(answer: str, *, num_words: int, relation: Relation) -> bool:
    return compares(len(re.findall(r"\w+", answer)), relation, num_words)


@_kind("length_constraints:nth_paragraph_first_word")
def _first_word(answer: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """The number of paragraphs and one of their first words; paragraphs are counted from 1."""
    parts = answer.split("\n\n")
    filled = sum(1 for part in parts if part.strip())
    if filled != num_paragraphs or nth_paragraph > filled:
        return False
    words = parts[nth_paragraph - 1].split()
    found = re.match(r"[^.,?!'\"]*", words[0].lstrip("'\"")) if words else None
    return found is not None and found[0].lower() == first_word.strip().lower()


@_kind("detectable_content:number_placeholders")
def _placeholders(answer: str, *, num_placeholders: int) -> bool:
    return len(re.findall(r"\[.*?\]", answer)) >= num_placeholders


@_kind("detectable_content:postscript")
def _postscript(answer: str, *, postscript_marker: str) -> bool:
    """Also with a space after its points: P. S."""
    pattern = re.escape(postscript_marker.strip()).replace(r"\.", r"\.\s?")
    return re.search(pattern, answer, re.IGNORECASE) is not None


@_kind("detectable_format:number_bullet_lists")
def _bullets(answer: str, *, num_bullets: int) -> bool:
    """Exactly so many lines that begin with one `*` or with `-`."""
    stars = re.findall(r"^\s*\*[^*].*$", answer, re.MULTILINE)
    dashes = re.findall(r"^\s*-.*$", answer, re.MULTILINE)
    return len(stars) + len(dashes) == num_bullets


@_kind("detectable_format:constrained_response")
def _constrained(answer: str) -> bool:
    return any(option in answer for option in YES_NO_MAYBE)


@_kind("detectable_format:number_highlighted_sections")
def _highlights(answer: str, *, num_highlights: int) -> bool:
    """`*so*` or `**so**`, with something inside."""
    found = [*re.findall(r"\*([^\n*]*)\*", answer), *re.findall(r"\*\*([^\n*]*)\*\*", answer)]
    return sum(1 for inside in found if inside.strip()) >= num_highlights


@_kind("detectable_format:multiple_sections")
def _sections(answer: str, *, section_spliter: str, num_sections: int) -> bool:
    begins = re.findall(rf"\s?{re.escape(section_spliter.strip())}\s?\d+\s?", answer)
    return len(begins) >= num_sections


@_kind("detectable_format:json_format")
def _json(answer: str) -> bool:
    """The whole answer, or the whole of one fenced block."""
    body = re.sub(r"^```(?:json)?|```$", "", answer.strip(), flags=re.IGNORECASE).strip()
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


@_kind("detectable_format:title")
def _title(answer: str) -> bool:
    return any(title.strip("<>").strip() for title in re.findall(r"<<[^\n]+>>", answer))


@_kind("combination:two_responses")
def _two_answers(answer: str) -> bool:
    """Two different texts with six stars between them."""
    parts = answer.split("******")
    if _filled(parts) != 2:
        return False
    first, second = (part.strip() for part in parts if part.strip())
    return first != second


@_kind("combination:repeat_prompt")
def _repeats(answer: str, *, prompt_to_repeat: str) -> bool:
    return answer.strip().lower().startswith(prompt_to_repeat.strip().lower())


@_kind("startend:end_checker")
def _ends(answer: str, *, end_phrase: str) -> bool:
    return answer.strip().strip('"').lower().endswith(end_phrase.strip().lower())


@_kind("startend:quotation")
def _quoted(answer: str) -> bool:
    answer = answer.strip()
    return len(answer) > 1 and answer[0] == answer[-1] == '"'


@_kind("change_case:capital_word_frequency")
def _capital_words(answer: str, *, capital_frequency: int, capital_relation: Relation) -> bool:
    """Words of capitals only; one of a single letter counts, and what an apostrophe parts are two: I'm has one."""
    words = re.findall(r"[^\W_]+(?:[-.][^\W_]+)*", answer)
    return compares(sum(word.isupper() for word in words), capital_relation, capital_frequency)


@_kind("change_case:english_capital")
def _all_capitals(answer: str) -> bool:
    return answer.isupper() and detected(answer) in ("en", None)


@_kind("change_case:english_lowercase")
def _all_small(answer: str) -> bool:
    return answer.islower() and detected(answer) in ("en", None)


@_kind("punctuation:no_comma")
def _no_comma(answer: str) -> bool:
    return "," not in answer


def _filled(parts: Sequence[str]) -> int:
    """How many parts have text; 0 when one inside has none, and only the first and the last may have none."""
    filled = [bool(part.strip()) for part in parts]
    return sum(filled) if all(filled[1:-1]) else 0


def detected(text: str) -> str | None:
    """The language of a text (ISO 639-1), None where it is too short to tell."""
    from matura.data.filters.language import UNDETERMINED, identify

    code, _ = identify(text.lower(), _detector()[0])
    return None if code == UNDETERMINED else code


@cache
def _detector() -> tuple[Callable[[str], dict[str, float]], frozenset[str]]:
    from matura.data.filters import language

    return language.detector()


def languages() -> frozenset[str]:
    """The codes that `detected` can give."""
    return _detector()[1]
