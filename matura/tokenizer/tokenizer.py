"""The tokenizer of a model: text to ids and back, exactly.

Text is always plain here. A user who types `<|im_end|>` gets the ids of those ten characters, never the token
that ends a turn: only code that asks for a special token by name (`id`) or for markup (`encode_markup`) gets
one.
"""

from __future__ import annotations

import codecs
import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import tokenizers

from matura.core.errors import FormatError, MaturaError
from matura.core.files import atomic_write, read_json

FILE = "tokenizer.json"
MAX_FILE_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Roles:
    """Which tokens of the vocabulary play a part: begin and end of a text, padding, unknown text, a masked token."""

    bos: str | None = None
    eos: str | None = None
    pad: str | None = None
    unk: str | None = None
    mask: str | None = None


@dataclass(frozen=True)
class TokenizerFiles:
    """All that a model file says of its texts. `stop_ids` end an answer; `generation` holds the file's own
    defaults as far as given: do_sample, the names of `core.settings.Sampling` and `Beams`, and by their own names
    others that would change answers."""

    tokenizer: Tokenizer
    chat_template: str | None = None
    stop_ids: tuple[int, ...] = ()
    generation: dict[str, Any] = field(default_factory=dict)


class Tokenizer:
    """Text to ids and back.

    `bos_id`, `eos_id`, `pad_id`, `unk_id`, `mask_id` are None when the model has none. `special_ids` are the
    tokens that are markup, not text. `prefix_ids` and `suffix_ids` are what the model expects around a plain text
    ([CLS] and [SEP] of BERT, the begin token of Llama and Gemma); `encode` does not add them.
    """

    def __init__(self, backend: tokenizers.Tokenizer, roles: Roles | None = None) -> None:
        """Takes over `backend`: no truncation, no padding, and special tokens in texts become plain.

        Raises FormatError when a role names a token that the vocabulary lacks.
        """
        self.roles = roles or Roles()
        backend.no_truncation()  # a tokenizer.json may carry a limit that silently cuts texts
        backend.no_padding()
        ids = {role: _role_id(backend, role, token) for role, token in asdict(self.roles).items()}
        self.bos_id, self.eos_id, self.pad_id, self.unk_id = ids["bos"], ids["eos"], ids["pad"], ids["unk"]
        self.mask_id = ids["mask"]
        added = backend.get_added_tokens_decoder()
        names = [token for token in asdict(self.roles).values() if token is not None]
        known = {token.content for token in added.values() if token.special}
        backend.add_special_tokens(
            [
                tokenizers.AddedToken(name, normalized=False, special=True)
                for name in names
                if name not in known
            ]
        )
        backend.encode_special_tokens = True
        self.backend = backend
        self._added = backend.get_added_tokens_decoder()
        self.special_ids = frozenset(id for id, token in self._added.items() if token.special)
        self.vocab_size = max(backend.get_vocab_size(), max(self._added, default=-1) + 1)
        # A model may say "unknown" of any text; every other special id in a plain text would be a forgery.
        unigram = isinstance(backend.model, tokenizers.models.Unigram)
        unknown = self.roles.unk if unigram else getattr(backend.model, "unk_token", None)
        self._forged = self.special_ids - {backend.token_to_id(unknown) if unknown else None}
        self._spelling = _spelling(backend)
        self._bytes: dict[int, bytes] = {}
        self._markup: tokenizers.Tokenizer | None = None
        self.prefix_ids, self.suffix_ids = _surroundings(backend)

    def __call__(self, text: str) -> list[int]:
        """The ids of a whole text as the model expects it: `encode` between `prefix_ids` and `suffix_ids`."""
        return [*self.prefix_ids, *self.encode(text), *self.suffix_ids]

    def encode(self, text: str) -> list[int]:
        """The ids of a plain text, without begin or end tokens. What looks like markup stays text."""
        text = _valid(text)
        encoding = self.backend.encode(text, add_special_tokens=False)
        return self._unforged(text, encoding) if self._is_forged(encoding.ids) else encoding.ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of every text, on all cores."""
        encodings = self.backend.encode_batch_fast([_valid(text) for text in texts], add_special_tokens=False)
        return [
            self.encode(text) if self._is_forged(encoding.ids) else encoding.ids
            for text, encoding in zip(texts, encodings, strict=True)
        ]

    def encode_markup(self, text: str) -> list[int]:
        """The ids of a text in which special tokens are meant, like a rendered chat template. Never for text
        that came from a user or a document."""
        if self._markup is None:
            self._markup = _recognising(self.backend)
        return self._markup.encode(_valid(text), add_special_tokens=False).ids

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        """The text of the ids. Bytes that are no UTF-8 become U+FFFD; unknown ids are left out."""
        if self._spelling is None:
            return self.backend.decode(list(ids), skip_special_tokens=skip_special)
        stream = self.stream(skip_special)
        return stream.push(*ids) + stream.finish()

    def stream(self, skip_special: bool = False) -> Stream:
        """Decodes id after id: the pieces put together are exactly what `decode` gives."""
        return Stream(self, skip_special)

    def token_bytes(self, id: int) -> bytes:
        """The bytes that a token stands for, which may be a part of a character; empty for an unknown id."""
        known = self._bytes.get(id)
        if known is None:
            known = self._bytes[id] = self._spell(id)
        return known

    def id(self, token: str) -> int:
        """The id of a token by its exact name, like "<|im_end|>". Raises MaturaError when there is none."""
        id = self.backend.token_to_id(token)
        if id is None:
            names = sorted(token.content for token in self._added.values())
            near = difflib.get_close_matches(token, names, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else f" Its special tokens are: {', '.join(names)}."
            raise MaturaError(f"the tokenizer has no token {token!r}.{hint}")
        return id

    def token(self, id: int) -> str | None:
        """The name of a token as the vocabulary writes it; None for an unknown id."""
        return self.backend.id_to_token(id) if 0 <= id < 2**32 else None

    def settings(self) -> dict[str, str | None]:
        """What tokenizer.json cannot hold: the tokens with a role. `load` takes it back."""
        return asdict(self.roles)

    def save(self, folder: str | Path) -> Path:
        """Write tokenizer.json; the same tokenizer gives the same bytes. Keep `settings()` beside it."""
        path = Path(folder) / FILE
        with atomic_write(path) as temporary:
            temporary.write_text(self.backend.to_str(pretty=False) + "\n", encoding="utf-8")
        return path

    def _is_forged(self, ids: list[int]) -> bool:
        return not self._forged.isdisjoint(ids)

    def _unforged(self, text: str, encoding: tokenizers.Encoding) -> list[int]:
        """The ids of a text that the vocabulary itself spells with special tokens: cut inside of those."""
        forged = zip(encoding.ids, encoding.offsets, strict=True)
        cuts = [begin + 1 for id, (begin, end) in forged if id in self._forged and end - begin > 1]
        if not cuts:
            return encoding.ids
        bounds = zip([0, *cuts], [*cuts, len(text)], strict=True)
        return [id for begin, end in bounds for id in self.encode(text[begin:end])]

    def _spell(self, id: int) -> bytes:
        token = self.token(id)
        if token is None:
            return b""
        if self._spelling is None:
            return self.backend.decode([id], skip_special_tokens=False).encode()
        if self._spelling.letters is not None and id in self._added:
            return self._added[id].content.encode()
        return self._spelling.token(token)


class Stream:
    """Decodes one id after the other and never gives out half a character."""

    def __init__(self, tokenizer: Tokenizer, skip_special: bool) -> None:
        self._tokenizer = tokenizer
        self._skip = tokenizer.special_ids if skip_special else frozenset()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._strip = tokenizer._spelling is not None and tokenizer._spelling.strips_first_space
        self._ids: list[int] = []  # only for vocabularies whose tokens depend on their neighbours
        self._given = 0

    def push(self, *ids: int) -> str:
        """The text that is complete now; empty while a character is still open."""
        ids = tuple(id for id in ids if id not in self._skip)
        if self._tokenizer._spelling is None:
            return self._whole(ids)
        return self._first(self._decoder.decode(b"".join(map(self._tokenizer.token_bytes, ids))))

    def finish(self) -> str:
        """What is left at the end: U+FFFD when the last character never became complete."""
        if self._tokenizer._spelling is None:
            return ""
        return self._first(self._decoder.decode(b"", final=True))

    def _first(self, text: str) -> str:
        if self._strip and text:
            self._strip = False
            return text.removeprefix(" ")
        return text

    def _whole(self, ids: tuple[int, ...]) -> str:
        self._ids += ids
        text = self._tokenizer.backend.decode(self._ids, skip_special_tokens=False)
        piece, self._given = text[self._given :], max(self._given, len(text))
        return piece


@dataclass(frozen=True, slots=True)
class _Spelling:
    """How a vocabulary writes bytes: byte-level letters (GPT-2), or "▁" and <0x0A> (SentencePiece)."""

    letters: dict[str, int] | None
    strips_first_space: bool = False

    def token(self, token: str) -> bytes:
        if self.letters is None:
            if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
                return bytes.fromhex(token[3:5])
            return token.replace("▁", " ").encode()
        try:
            return bytes([self.letters[letter] for letter in token])
        except KeyError:  # not written in byte letters, so it stands for itself
            return token.encode()


def byte_letters() -> dict[str, int]:
    """The printable letter that stands for each byte in byte-level vocabularies (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


def _spelling(backend: tokenizers.Tokenizer) -> _Spelling | None:
    """None when the text of a token depends on its neighbours (WordPiece, Unigram without bytes)."""
    if backend.decoder is None:
        return None
    decoder = json.loads(backend.decoder.__getstate__())
    steps = decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"]:
        return _Spelling(byte_letters())
    if "ByteFallback" not in kinds or not set(kinds) <= {"Replace", "ByteFallback", "Fuse", "Strip"}:
        return None
    for step in steps:
        if step["type"] == "Replace" and (step["pattern"], step["content"]) != ({"String": "▁"}, " "):
            return None
        if step["type"] == "Strip" and (step["content"], step["start"], step["stop"]) != (" ", 1, 0):
            return None
    return _Spelling(None, strips_first_space="Strip" in kinds)


def _role_id(backend: tokenizers.Tokenizer, role: str, token: str | None) -> int | None:
    id = None if token is None else backend.token_to_id(token)
    if id is None and token is not None:
        raise FormatError(
            f"the tokenizer's {role} token {token!r} is not in its vocabulary. "
            "The model's files do not belong together: download them again."
        )
    return id


def _surroundings(backend: tokenizers.Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    plain = backend.encode("a", add_special_tokens=False).ids
    whole = backend.encode("a", add_special_tokens=True).ids
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return tuple(whole[:start]), tuple(whole[start + len(plain) :])
    return (), ()


def _recognising(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """A second tokenizer on the same model (shared, not copied) that does see special tokens."""
    twin = tokenizers.Tokenizer(backend.model)
    for part in ("normalizer", "pre_tokenizer"):
        if getattr(backend, part) is not None:
            setattr(twin, part, getattr(backend, part))
    twin.add_tokens([token for _, token in sorted(backend.get_added_tokens_decoder().items())])
    if twin.get_added_tokens_decoder().keys() != backend.get_added_tokens_decoder().keys():
        return tokenizers.Tokenizer.from_str(backend.to_str())  # ids with gaps: only a full copy keeps them
    return twin


def _valid(text: str) -> str:
    """`text` with lone surrogates, which are no characters, as U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def parse(text: str, where: str | Path) -> tokenizers.Tokenizer:
    """A tokenizer from the text of a tokenizer.json. Raises FormatError naming `where`."""
    try:
        return tokenizers.Tokenizer.from_str(text)
    except Exception as error:
        raise FormatError(
            f"{where}: not a tokenizer that can be read: {error}. Download it again, or use a newer version "
            f"of the tokenizers library (this is {tokenizers.__version__})."
        ) from error


def load(folder: str | Path, settings: Mapping[str, Any] | None = None) -> Tokenizer:
    """The tokenizer of a model's folder.

    `settings` is what `Tokenizer.settings()` gave; without it, the entry `tokenizer_settings` of the folder's
    conversation.json is used, if there is one. Raises FormatError.
    """
    folder = Path(folder)
    path = folder / FILE
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise FormatError(
                f"{path}: larger than {MAX_FILE_BYTES} bytes: not a tokenizer of any known model."
            )
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: cannot be read: {error}.") from error
    conversation = folder / "conversation.json"
    if settings is None and conversation.is_file():
        stored = read_json(conversation, limit=64 << 20, what="a conversation format")
        settings = stored.get("tokenizer_settings") or {}
    settings = settings or {}
    wrong = sorted(set(settings) - set(asdict(Roles())))
    if wrong or not all(value is None or isinstance(value, str) for value in settings.values()):
        raise FormatError(
            f"{path}: its settings must be texts named bos, eos, pad, unk, mask, not {settings!r}."
        )
    return Tokenizer(parse(text, path), Roles(**settings))
