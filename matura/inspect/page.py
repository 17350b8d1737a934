"""The two views as self-contained HTML pages: nothing is loaded from anywhere, and no text can become code.

Data stands in a JSON block in which <, > and & are escaped; the page's own script is the only one that its content
security policy allows (by its hash), and it writes texts as text only.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from matura.core.errors import MaturaError
from matura.core.files import size_text
from matura.inspect.attention import Attentions
from matura.inspect.heads import PATTERNS, patterns
from matura.inspect.reading import shown
from matura.inspect.tokens import Expectations, level, separator

FOLDER = Path(__file__).parent

MAX_TOKENS = 256
"""Tokens that a page can show in one matrix."""

MAX_BYTES = 64_000_000
"""Bytes of data in one page."""

_ESCAPES = {ord(letter): f"\\u{ord(letter):04x}" for letter in "<>&\u2028\u2029"}


def embedded(data: Any) -> str:
    """`data` as JSON that can stand inside a script element."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).translate(_ESCAPES)


def attention_page(
    found: Sequence[Attentions], model: str, text: str, start: Mapping[str, int] | None = None
) -> str:
    """A page to look through all weights: pickers, numbers, head finder, sinks.

    `start` may hold the positions `from` and `to` of two tokens and `drop` (without sinks), as the page first
    shows them. Weights are rounded to 1/65535. Raises MaturaError for more than MAX_TOKENS tokens or MAX_BYTES of data.
    """
    longest = max(len(reading.ids) for one in found for reading in (one.queries, one.keys))
    if longest > MAX_TOKENS:
        raise MaturaError(
            f"a page shows at most {MAX_TOKENS} tokens and this text has {longest}; shorten it, or write the "
            "weights to JSON or CSV"
        )
    size = sum(one.weights_LHTS.numel() for one in found) * 8 // 3
    if size > MAX_BYTES:
        raise MaturaError(
            f"the page would hold {size_text(size)}, more than {size_text(MAX_BYTES)}; choose fewer layers or "
            "heads, or shorten the text"
        )
    data = {"patterns": PATTERNS, "start": dict(start or {}), "parts": [_part(one) for one in found]}
    script = (FOLDER / "attention.js").read_text(encoding="utf-8").strip()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return _render(
        "attention.html",
        title=f"Attention of {model}",
        text=text,
        data=embedded(data),
        script=script,
        digest=digest,
    )


def _part(one: Attentions) -> dict[str, Any]:
    scores = {name: _rounded(score_LH) for name, score_LH in patterns(one).items()}
    return {
        "part": one.part,
        "layers": one.layers,
        "heads": one.heads,
        "causal": one.causal,
        "allHeads": one.all_heads,
        "kvHeads": one.kv_heads,
        "queries": [shown(label) for label in one.queries.labels],
        "keys": [shown(label) for label in one.keys.labels],
        "sinks": one.keys.sinks,
        "scores": scores,
        "weights": _packed(one.weights_LHTS),
    }


def _rounded(score_LH: Tensor) -> list[list[float]]:
    return [[round(value, 5) for value in row] for row in score_LH.tolist()]


def _packed(weights_LHTS: Tensor) -> str:
    """Little-endian 16-bit numbers, weight times 65535, in base64."""
    numbers = (weights_LHTS.double() * 65535).round().to(torch.int32).flatten().numpy()
    return base64.b64encode(numbers.astype("<u2").tobytes()).decode("ascii")


def tokens_page(found: Expectations, model: str, text: str, settings: Mapping[str, Any]) -> str:
    """A page with the text coloured by surprise and a row for every token. It needs no script."""
    levels = [level(one.surprisal) for one in found.tokens]
    return _render(
        "tokens.html",
        title=f"Tokens of {model}",
        text=text,
        found=found,
        separator=separator(found, text),
        rows=list(zip(found.tokens, levels, strict=True)),
        settings=settings,
        cut=any(one.cut for one in found.tokens),
        compared=any(one.kl is not None for one in found.tokens),
    )


def _render(template: str, **values: Any) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = shown
    return environment.get_template(template).render(**values)
