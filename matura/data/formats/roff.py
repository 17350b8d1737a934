"""Characters and arguments of roff, the language of manual pages (groff_char(7), groff(7))."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

ESCAPE = re.compile(
    r"\\(?:"
    r"[fmMFgkYVn](?:\[[^\]]{0,60}\]|\(.{2}|[+-]?.)"  # fonts, colours, registers: nothing to see
    r"|s(?:\[[^\]]{0,9}\]|'[^']{0,9}'|\([+-]?\d{2}|[+-]?\d{1,2})"  # sizes
    r"|[hvwbDLlRSxXoZHBA]'[^']{0,200}'"  # movements, drawings
    r"|N'(?P<code>\d{1,6})'"
    r"|\*(?:\[(?P<string>[^\]]{0,60})\]|\((?P<string2>.{2})|(?P<string1>.))"
    r"|C'(?P<quoted>[^']{0,60})'|\[(?P<name>[^\]]{0,60})\]|\((?P<name2>.{2})"
    r"|z(?:\\.)?"
    r"|(?P<one>.)|$)",
    re.DOTALL,
)
ONE = {
    **dict.fromkeys("&)%:/,|^{}!?cdurpaz", ""),
    **dict.fromkeys(" ~0", " "),
    "e": "\\",
    "E": "\\",
    "t": "\t",
}
"""Escapes of one character that do not stand for themselves."""

_PLAIN = (
    "hy - en – em — bu • aq ' dq \" oq ‘ cq ’ lq “ rq ” Bq „ bq ‚ Fo « Fc » fo ‹ fc › rs \\ sl / ba | bv | br | or | "
    "ul _ rn ‾ ha ^ ti ~ ga ` aa ´ at @ sh # Do $ lB [ rB ] lC { rC } la ⟨ ra ⟩ de ° co © rg ® tm ™ ct ¢ Eu € eu € "
    "Po £ Ye ¥ ps ¶ sc § dg † dd ‡ mu × tmu × di ÷ pl + mi − +- ± -+ ∓ eq = == ≡ != ≠ <= ≤ >= ≥ << ≪ >> ≫ ~= ≈ ap ∼ "
    "pt ∝ if ∞ -> → <- ← <> ↔ ua ↑ da ↓ rA ⇒ lA ⇐ hA ⇔ no ¬ AN ∧ OR ∨ mo ∈ nm ∉ es ∅ sb ⊂ ib ⊆ ip ⊇ ca ∩ cu ∪ "
    "sr √ sum ∑ product ∏ integral ∫ pd ∂ gr ∇ fa ∀ te ∃ 12 ½ 14 ¼ 34 ¾ S1 ¹ S2 ² S3 ³ ss ß AE Æ ae æ OE Œ oe œ "
    "/O Ø /o ø /L Ł /l ł -D Ð Sd ð TP Þ Tp þ .i ı r! ¡ r? ¿ Of ª Om º ts ς pc · md ⋅ CR ↵ sq □ ci ○ lz ◊ OK ✓"
)
_BY_NAME = _PLAIN.split()
_ACCENTS = dict(zip("':`^~,ov", "\u0301\u0308\u0300\u0302\u0303\u0327\u030a\u030c", strict=True))
_GREEK = dict(zip("abgdezyhiklmncoprstufxqw", "αβγδεζηθικλμνξοπρστυφχψω", strict=True))
CHARACTERS = {
    **dict(zip(_BY_NAME[::2], _BY_NAME[1::2], strict=True)),
    **{f"*{latin}": greek for latin, greek in _GREEK.items()},
    **{f"*{latin.upper()}": greek.upper() for latin, greek in _GREEK.items()},
}
"""Special characters by name."""
_ARGUMENT = re.compile(r'"((?:[^"]|"")*)"?|((?:\\.|[^\s\\])+)')


def character(name: str) -> str:
    """What a special character looks like; nothing for an unknown one."""
    if name in CHARACTERS:
        return CHARACTERS[name]
    if len(name) == 2 and name[0] in _ACCENTS and name[1].isalpha():
        return unicodedata.normalize("NFC", name[1] + _ACCENTS[name[0]])
    if re.fullmatch(r"u[0-9A-F]{4,6}(?:_[0-9A-F]{4,6}){0,3}", name):
        return "".join(_code(int(one, 16)) for one in name[1:].split("_"))
    return ""


def plain(text: str, strings: Mapping[str, str], names: Mapping[str, str]) -> str:
    """The text with its escapes resolved. `names` are characters that a page defines anew."""

    def shown(match: re.Match[str]) -> str:
        if match["one"] is not None:
            return ONE.get(match["one"], match["one"])
        name = match["name"] or match["name2"] or match["quoted"]
        if name is not None:
            return names[name] if name in names else character(name)
        if match["code"] is not None:
            return _code(int(match["code"]))
        return strings.get(match["string"] or match["string2"] or match["string1"] or "", "")

    return ESCAPE.sub(shown, text) if "\\" in text else text


def arguments(rest: str) -> list[str]:
    """The arguments of a request or macro, quotes taken off, escapes left in."""
    return [
        (match[1].replace('""', '"') if match[1] is not None else match[2])
        for match in _ARGUMENT.finditer(rest)
    ]


def _code(number: int) -> str:
    return chr(number) if number < 0x110000 and not 0xD800 <= number < 0xE000 else ""
