"""Training a tokenizer: byte-level BPE, WordPiece or Unigram, by the Rust tokenizers library.

The same texts give the same tokenizer, bit for bit, although the library keeps words in tables of random order:

- BPE breaks ties by ids, which depend on the alphabet alone, and that is fixed before (all 256 bytes).
- WordPiece would number the continuations of letters ("##a") as it meets them, so they are numbered before.
- Unigram finds its pieces by expectation maximisation, whose sums differ in the last digits from run to run. The pieces
  were the same in every run that was compared; their scores are estimated anew, from counts of whole numbers.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

from matura.core.errors import FormatError, MaturaError
from matura.tokenizer import pretokenizers

Texts = Callable[[], Iterator[str]]
"""A new pass over the same texts, which are never in memory together."""

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
LETTERS = 1000  # of the alphabet of WordPiece; rarer ones become unknown
ROUNDS = 4  # of estimating Unigram's scores; more of them move the mean cost by less than 0.01%
SELDOM = -1000.0  # score of pieces that no text is to be cut into
ENCODE_WORDS = 50_000


@dataclass(frozen=True, slots=True)
class Plan:
    """What to train. `special` become the first ids; `unknown` is the one among them for what cannot be written, which
    WordPiece and Unigram need. `pattern` (BPE) is a name of `pretokenizers` or a regular expression."""

    kind: str
    vocabulary: int
    special: tuple[str, ...]
    unknown: str | None = None
    pattern: str = "gpt-2"
    digits: str = "single"
    normalization: str = "none"
    min_frequency: int = 2


def train(texts: Texts, plan: Plan) -> tokenizers.Tokenizer:
    """The tokenizer that `plan` describes, without post-processor.

    It may have fewer tokens than asked where the texts do not give more. Raises MaturaError when there is no text or
    the vocabulary has no room, FormatError for a pattern that cannot be used.
    """
    least = {"bpe": 256, "unigram": 256 + 26, "wordpiece": 52}[plan.kind] + len(plan.special)
    if plan.vocabulary < least:
        raise MaturaError(
            f"a vocabulary of {plan.vocabulary} has no room: {plan.kind} with {len(plan.special)} special tokens needs "
            f"at least {least}"
        )
    if next((True for text in texts() if text.strip()), None) is None:
        raise MaturaError("there is no text to train a tokenizer on")
    made = {"bpe": _bpe, "wordpiece": _wordpiece, "unigram": _unigram}[plan.kind](texts, plan)
    made.add_special_tokens(
        [tokenizers.AddedToken(name, normalized=False, special=True) for name in plan.special]
    )
    return made


def _bpe(texts: Texts, plan: Plan) -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.BPE())
    _set(made, _normalizer(plan.normalization), byte_level(plan.pattern, plan.digits))
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=plan.vocabulary,
        min_frequency=plan.min_frequency,
        special_tokens=list(plan.special),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train_from_iterator(texts(), trainer)
    return made


def byte_level(pattern: str, digits: str) -> pre_tokenizers.PreTokenizer:
    """How byte-level BPE cuts texts into words: by a known name or a regular expression, digits apart if "single"."""
    if re.fullmatch(r"[\w.-]+", pattern):
        last = pretokenizers.pre_tokenizer(pattern)
    else:
        try:
            split = pre_tokenizers.Split(Regex(pattern), "isolated")
        except Exception as error:  # the library raises its own bare Exception
            raise FormatError(f"pattern: {pattern!r} is no regular expression: {error}") from error
        last = pre_tokenizers.Sequence(
            [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
    if digits != "single":
        return last
    first = pre_tokenizers.Digits(individual_digits=True)
    if pattern == "gpt-2":
        return pretokenizers.pre_tokenizer("smollm")  # the same cuts, under a name that GGUF files know
    return pre_tokenizers.Sequence([first, last])


def _wordpiece(texts: Texts, plan: Plan) -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.WordPiece(unk_token=plan.unknown))
    normalizer = _normalizer(plan.normalization)
    words: list[pre_tokenizers.PreTokenizer] = [pre_tokenizers.BertPreTokenizer()]
    if plan.digits == "single":
        words.append(pre_tokenizers.Digits(individual_digits=True))
    cut = pre_tokenizers.Sequence(words) if len(words) > 1 else words[0]
    _set(made, normalizer, cut)
    letters = _alphabet(texts, normalizer)
    trainer = trainers.WordPieceTrainer(
        vocab_size=plan.vocabulary,
        min_frequency=plan.min_frequency,
        special_tokens=[*plan.special, *(f"##{letter}" for letter in letters)],
        initial_alphabet=letters,
        limit_alphabet=len(letters),
        show_progress=False,
    )
    made.train_from_iterator(texts(), trainer)
    final = tokenizers.Tokenizer(models.WordPiece(made.get_vocab(), unk_token=plan.unknown))
    _set(final, normalizer, cut)
    final.decoder = decoders.WordPiece(prefix="##")
    return final


def _alphabet(texts: Texts, normalizer: normalizers.Normalizer | None) -> list[str]:
    """The most frequent letters, in their order in Unicode."""
    counts: Counter[str] = Counter()
    for text in texts():
        counts.update(normalizer.normalize_str(text) if normalizer else text)
    counted = [(-count, letter) for letter, count in counts.items() if not letter.isspace()]
    return sorted(letter for _, letter in sorted(counted)[:LETTERS])


def _unigram(texts: Texts, plan: Plan) -> tokenizers.Tokenizer:
    normalizer = _normalizer(plan.normalization)
    words: list[pre_tokenizers.PreTokenizer] = [pre_tokenizers.Split("\n", "isolated")]
    if plan.digits == "single":
        words.append(pre_tokenizers.Digits(individual_digits=True))
    cut = pre_tokenizers.Sequence([*words, pre_tokenizers.Metaspace(prepend_scheme="never")])
    library = tokenizers.Tokenizer(models.Unigram())
    _set(library, normalizer, cut)
    trainer = trainers.UnigramTrainer(
        vocab_size=plan.vocabulary - len(BYTES) - len(plan.special),
        unk_token="<unk>",
        special_tokens=["<unk>"],
        show_progress=False,
    )
    try:
        library.train_from_iterator(texts(), trainer)
    except BaseException as error:  # a panic of the library is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit | MaturaError):
            raise
        raise MaturaError(f"the texts are too few for a Unigram tokenizer: {error}") from error
    taken = {"<unk>", *plan.special, *BYTES}
    found = {piece for piece, _ in json.loads(library.to_str())["model"]["vocab"]} - taken
    pieces = sorted(found)[: plan.vocabulary - len(BYTES) - len(plan.special)]
    scores = _scores(pieces, _words(texts, normalizer, cut))
    apart = [(name, SELDOM) for name in (*plan.special, *BYTES)]
    unknown = None if plan.unknown is None else plan.special.index(plan.unknown)
    ordered = sorted(zip(pieces, scores, strict=True), key=lambda one: (-one[1], one[0]))
    final = tokenizers.Tokenizer(models.Unigram([*apart, *ordered], unknown, True))
    _set(final, normalizer, cut)
    final.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return final


def _words(
    texts: Texts, normalizer: normalizers.Normalizer | None, cut: pre_tokenizers.PreTokenizer
) -> list[tuple[str, int]]:
    counts: Counter[str] = Counter()
    for text in texts():
        plain = normalizer.normalize_str(text) if normalizer else text
        counts.update(word for word, _ in cut.pre_tokenize_str(plain))
    return sorted(counts.items())


def _scores(pieces: Sequence[str], words: Sequence[tuple[str, int]]) -> list[float]:
    """Log-probabilities of the pieces by hard expectation maximisation: cut every word in the likeliest way, count,
    repeat; the first cut is into the fewest pieces (arXiv:1804.10959, section 3.2, with Viterbi in place of all cuts).
    """
    scores = [-1.0] * len(pieces)
    for _ in range(ROUNDS):
        model = tokenizers.Tokenizer(
            models.Unigram([("<unk>", 0.0), *zip(pieces, scores, strict=True)], 0, False)
        )
        counts = [0] * (len(pieces) + 1)
        for start in range(0, len(words), ENCODE_WORDS):
            some = words[start : start + ENCODE_WORDS]
            for (_, often), found in zip(
                some, model.encode_batch_fast([word for word, _ in some]), strict=True
            ):
                for id in found.ids:
                    counts[id] += often
        total = sum(counts)
        scores = [math.log(max(count, 0.1) / total) for count in counts[1:]]
    return scores


def _normalizer(name: str) -> normalizers.Normalizer | None:
    return {
        "none": lambda: None,
        "nfc": normalizers.NFC,
        "nfkc": normalizers.NFKC,
        "cased": lambda: normalizers.BertNormalizer(lowercase=False, strip_accents=False),
        "uncased": lambda: normalizers.BertNormalizer(lowercase=True),
    }[name]()


def _set(
    made: tokenizers.Tokenizer, normalizer: normalizers.Normalizer | None, cut: pre_tokenizers.PreTokenizer
) -> None:
    if normalizer is not None:
        made.normalizer = normalizer
    made.pre_tokenizer = cut
