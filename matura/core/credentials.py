"""Passwords, keys and tokens in addresses: written as `${NAME}`, and filled in only where an address is opened.

What is recorded (settings, lineage, reports, errors) is the address as it was written, so a secret that stands in it in
clear is refused before anything is stored.
"""

from __future__ import annotations

import os
import re
from urllib.parse import quote, quote_plus, unquote_plus

from matura.core.errors import ConfigError

VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>.*)", re.DOTALL)
_NAME = (
    r"pass(?:word|wd|phrase)?|pwd|secret|token|sig|signature|credentials?|auth|key|api[-_]?key"
    r"|access[-_]?key(?:[-_]?id)?"
)
_PARAMETER = re.compile(
    rf"(?i)(?:.*[-_.])?(?:client|db|user|access|auth)?(?:{_NAME})|sslpassword|awsaccesskeyid"
)
_IN_TEXT = re.compile(
    r"(?P<user>://[^\s:/@\"'?#]*):[^\s\"']*?@(?=[^\s@\"']*(?:[\s\"']|$))"
    rf"|(?P<name>[?&;][\w.-]*(?:{_NAME})=|(?:pwd|password)%3D)[^&\s\"';]+",
    re.IGNORECASE,
)
ADVICE = (
    "write ${NAME} in its place and set that environment variable: settings are recorded in every artifact"
)


def problem(address: str) -> str | None:
    """What stands in clear in an address that should not, without saying it; None when all is well."""
    match = _ADDRESS.fullmatch(address)
    if match is None:
        return None
    scheme, rest = match["scheme"].lower(), match["rest"]
    query = rest.partition("?")[2].partition("#")[0]
    if scheme.startswith("http"):
        # A web address may hold ":" and "@" in its path; what stands alone before the host may be a token.
        user, at, _ = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")
        secret = (user.partition(":")[2] if ":" in user else user) if at else ""
    else:
        # Passwords with "/", "?" or "#" in them are found too, though such an address would not even work.
        user, at, _ = rest.rpartition("@")
        secret = user.partition(":")[2] if at and "/" not in user.partition(":")[0] else ""
    if scheme in ("s3", "s3a", "gs", "gcs") and re.search("[:@]", rest.partition("/")[0]):
        return "keys of an object store are not part of its path: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if VARIABLE.sub("", secret) and scheme not in ("s3", "s3a", "gs", "gcs"):
        return f"it has a password or token in clear: {ADVICE}"
    for pair in re.split(r"[&;]", query):
        name, _, value = pair.partition("=")
        inner = unquote_plus(value)
        if (_PARAMETER.fullmatch(name) and VARIABLE.sub("", value)) or re.search(
            r"(?i)\b(pwd|password)\s*=\s*(?!\$\{)[^;\s]", inner
        ):
            return f"its parameter {name[:30]} is in clear: {ADVICE}"
    return None


def filled(address: str) -> str:
    """The address with its variables' values, percent-encoded in user, password and query. Raises ConfigError."""
    if not VARIABLE.search(address):
        return address
    match = _ADDRESS.fullmatch(address)
    host_at = len(match["scheme"]) + 3 + match["rest"].rfind("@") if match and "@" in match["rest"] else -1
    query_at = address.find("?")

    def value(found: re.Match[str]) -> str:
        given = os.environ.get(found[1])
        if not given:
            raise ConfigError(f"{shown(address)}: the environment variable {found[1]} is not set.")
        encoded = found.start() < host_at or 0 <= query_at < found.start()
        return quote(given, safe="") if encoded else given

    return VARIABLE.sub(value, address)


def shown(text: str) -> str:
    """A text without the passwords and tokens of the addresses in it; variables stay as they are."""

    def hidden(match: re.Match[str]) -> str:
        kept = match["user"] or match["name"]
        whole = match[0]
        secret = whole[len(kept) :].lstrip(":").removesuffix("@") if match["user"] else whole[len(kept) :]
        if secret and not VARIABLE.sub("", secret):
            return whole
        return f"{match['user']}:***@" if match["user"] else f"{kept}***"

    return _IN_TEXT.sub(hidden, text)


def without_secrets(text: str, address: str) -> str:
    """A library's message about an address, with the values of its variables hidden, as they are or encoded."""
    for name in VARIABLE.findall(address):
        value = os.environ.get(name)
        for form in sorted({value, quote(value, safe=""), quote_plus(value)}, key=len) if value else ():
            text = text.replace(form, "***")
    return shown(text)
