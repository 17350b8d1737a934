"""E-mail and IP addresses."""

import ipaddress
import re
from collections.abc import Iterator

from matura.data.pii.spans import EMAIL, IP, Span

_NAME = re.compile(r"(?<![\w.%+'-])[\w%+'-](?:[\w.%+'-]{0,62}[\w%+-])?$")
_DOMAIN = re.compile(r"(?:[^\W_](?:[^\W_]|-){0,62}\.){1,8}(?P<top>[^\W\d_]{2,24})(?![\w@-])")
_FILE_ENDINGS = frozenset(
    [
        "png",
        "jpg",
        "jpeg",
        "gif",
        "svg",
        "webp",
        "js",
        "ts",
        "css",
        "html",
        "json",
        "yaml",
        "yml",
        "toml",
    ]
)
_LONGEST_NAME = 64


def emails(text: str) -> Iterator[Span]:
    """E-mail addresses; not what only has an @ in it (icon@2x.png, git@host:path, a matrix product)."""
    at = text.find("@")
    done = 0
    while at >= 0:
        begin = max(done, at - _LONGEST_NAME - 1)
        if (domain := _DOMAIN.match(text, at + 1)) and (name := _NAME.search(text[begin:at])):
            start, end = begin + name.start(), domain.end()
            # The window must not have cut a longer word, and the word before must not have been an address.
            whole = start > begin or begin == 0 or begin == done
            if whole and _is_address(text, start, end, domain["top"]):
                yield Span(start + len(name[0]) - len(name[0].lstrip("'")), end, EMAIL)
                done = end
        at = text.find("@", at + 1)


def _is_address(text: str, start: int, end: int, top: str) -> bool:
    if top.lower() in _FILE_ENDINGS:  # icon@2x.png
        return False
    if text[end : end + 1] == "(" or re.match(r"\.\w", text[end : end + 2]):  # a @ b.mean(), a@b.c_d
        return False
    if re.match(r":[^\s\d)\]]", text[end : end + 2]):  # git@host.org:group/project.git
        return False
    return not re.search(r"://\S{0,200}$", text[max(0, start - 210) : start])  # ssh://git@host.org/project


_IPV4 = re.compile(r"(?<![\w.-])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![\w-]|\.[0-9])")
_VERSION_BEFORE = re.compile(
    r"(?i:\b(?:versions?|ver|v|releases?|rev|revision|standards|changes in|upgrad\w{1,4}(?: \S{1,20})? to|updat\w{1,4}"
    r"(?: \S{1,20})? to)|[=<>~!]=)[\s:]{0,3}$"
)
_IPV6 = re.compile(
    r"(?<![\w:.])(?:[0-9a-fA-F]{1,4}:){1,7}(?::|[0-9a-fA-F]{1,4})(?::?[0-9a-fA-F]{1,4}){0,6}(?![\w:])"
)
_UNICAST = ipaddress.IPv6Network("2000::/3")


def ip_addresses(text: str) -> Iterator[Span]:
    """Public addresses: not those of private networks, of loops and of documentation."""
    for match in _IPV4.finditer(text):
        try:
            public = ipaddress.IPv4Address(match[0]).is_global
        except ValueError:
            continue
        # Versions of four numbers look the same.
        if public and not _VERSION_BEFORE.search(text[max(0, match.start() - 40) : match.start()]):
            yield Span(*match.span(), IP)
    for match in _IPV6.finditer(text) if text.count(":") >= 2 else ():
        try:
            address = ipaddress.IPv6Address(match[0])
        except ValueError:
            continue
        # Short forms are also what C++ scopes look like, and eight pairs of digits are hardware addresses.
        short = "::" in match[0]
        convincing = address in _UNICAST if short else any(len(group) > 2 for group in match[0].split(":"))
        if address.is_global and convincing and any(character.isdigit() for character in match[0]):
            yield Span(*match.span(), IP)
