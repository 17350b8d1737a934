"""`matura fill`, `matura embed` and `matura score`: what a model says of a text, on the terminal."""

import json
import sys
from collections.abc import Sequence
from typing import Any

from matura.core.errors import MaturaError


def fill(reference: str, text: str, top_k: int) -> None:
    """For each mask a line for each fill: probability, token, and the text with it."""
    from matura import api
    from matura.infer.fill import mask, mask_spelling

    text = _read(text)
    model = api.load(reference)
    found = model.fill(text, top_k=top_k)
    own, used = mask(model.tokenizer), mask_spelling(model.tokenizer, text)
    if used != own:
        print(f"matura: this model's mask is {own}; {used} was taken for it", file=sys.stderr, flush=True)
    for number, fills in enumerate(found, 1):
        if len(found) > 1:
            print(f"{own} {number} of {len(found)}")
        width = max(len(one.token) for one in fills)
        for one in fills:
            print(f"{one.probability:8.4f}  {one.token.ljust(width)}  {one.text}")


def embed(reference: str, texts: Sequence[str], *, as_json: bool, **settings: Any) -> None:
    """The vector of each text, or, without `as_json`, its beginning and how alike the texts are."""
    from matura import api

    if "-" in texts:
        if len(texts) > 1:
            raise MaturaError('"-" reads all texts from stdin; leave the others out')
        texts = sys.stdin.read().splitlines()
    if not texts:
        raise MaturaError("there is no text: stdin was empty")
    vectors = api.load(reference).embed(texts, **settings)
    if as_json:
        rows = zip(texts, vectors.tolist(), strict=True)
        print(json.dumps([{"text": text, "embedding": row} for text, row in rows], ensure_ascii=False))
        return
    for number, (text, vector) in enumerate(zip(texts, vectors, strict=True), 1):
        numbers = " ".join(f"{value:.4f}" for value in vector[:6].tolist())
        print(f"{number}  {numbers} ... ({len(vector)} numbers)  {_short(text)}")
    if len(texts) > 1:
        unit = vectors / vectors.norm(dim=-1, keepdim=True)
        print("\ncosine" + "".join(f"{number:8}" for number in range(1, len(texts) + 1)))
        for number, row in enumerate((unit @ unit.T).tolist(), 1):
            print(f"{number:6}" + "".join(f"{value:8.4f}" for value in row))


def score(reference: str, text: str, continuation: str | None) -> None:
    """Log-probability, perplexity and bits per byte of a text or of its continuation."""
    from matura import api

    text = _read(text)
    found = api.load(reference).score(text, continuation)
    print(f"log-probability  {found.logprob:.4f}  ({found.tokens} tokens, {found.bytes} bytes)")
    print(f"perplexity       {found.perplexity:.4f}")
    print(f"bits per byte    {found.bits_per_byte:.4f}")


def _read(text: str) -> str:
    return sys.stdin.read() if text == "-" else text


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:57]}..."
