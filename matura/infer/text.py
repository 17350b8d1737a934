"""Generation as text: pieces as they become complete, and stop strings that may span tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from matura.core.settings import Sampling
from matura.infer.engine import Request, stream
from matura.model.transformer import Transformer
from matura.tokenizer.tokenizer import Tokenizer


def stream_text(
    model: Transformer, tokenizer: Tokenizer, ids: Sequence[int], sampling: Sampling, stop_ids: Sequence[int]
) -> Iterator[str]:
    """The answer to one prompt, in pieces that are whole characters. Stop tokens and stop strings are left out."""
    decoder = tokenizer.stream(skip_special=True)
    stop = StopStrings(sampling.stop)
    for token in stream(model, [Request(ids, sampling, stop_ids)]):
        piece = "" if token.finish == "stop" else decoder.push(token.id)
        if token.finish:
            piece += decoder.finish()
        if ready := stop.push(piece):
            yield ready
        if stop.found:
            return
    if rest := stop.finish():
        yield rest


class StopStrings:
    """Passes text on up to the first stop string; what could be the beginning of one is held back."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops = tuple(stop for stop in stops if stop)
        self.found = False
        self._held = ""

    def push(self, piece: str) -> str:
        """The text that is certain now."""
        if self.found:
            return ""
        text = self._held + piece
        # The one that is complete first: then it does not matter where the text was cut into pieces.
        found = [(at + len(stop), at) for stop in self.stops if (at := text.find(stop)) >= 0]
        if found:
            self.found, self._held = True, ""
            return text[: min(found)[1]]
        keep = max((_opening(text, stop) for stop in self.stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """What was held back when the text ends."""
        held, self._held = self._held, ""
        return held


def _opening(text: str, stop: str) -> int:
    """Length of the longest beginning of `stop` that `text` ends with."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
