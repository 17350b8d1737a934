"""From logits to the next token: pure functions, exact, and independent of who else is in the batch.

The steps run in `Sampling.order`; what is off takes no time. (The default order is that of Hugging Face's generate, so
equal settings mean equal distributions.)

Shape suffixes: B batch, V vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from matura.core.errors import MaturaError
from matura.core.settings import Sampling, Step, is_on
from matura.infer import penalties

FIRST_LOOK = 512
"""Tokens that top-p and min-p look at before they sort the whole vocabulary."""

COLDEST = 1e-30
"""Temperatures below this are taken for 0, their limit: in float32, a logit divided by much less is infinite."""

CUTS: tuple[Step, ...] = ("temperature", "top_k", "top_p", "min_p", "typical_p")
"""The steps of `kept`, in its order."""

BANS: tuple[Step, ...] = ("no_repeat_ngram", "bad_words", "allowed")

Allowed = Callable[[Sequence[int]], Collection[int] | None]
"""The ids of the answer so far -> the ids that may come next, or None for all of them."""


def uniform(seed: int, position: int) -> float:
    """The draw in [0, 1) for one position of one request: a hash, so no other request can disturb it."""
    digest = hashlib.blake2b(f"{seed}/{position}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def sample_seed(seed: int, sample: int) -> int:
    """The seed of one of several answers to a prompt; the first one's is the request's own."""
    if sample == 0:
        return seed
    digest = hashlib.blake2b(f"{seed}/sample/{sample}".encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big")


@dataclass(frozen=True, slots=True)
class Chain:
    """The steps of one request, worked out once: `steps` over the whole vocabulary, then `kept` with the settings of
    `last`. `greedy` says that the answer is the largest logit and nothing else."""

    sampling: Sampling
    last: Sampling
    steps: tuple[Step, ...]
    bad_words: tuple[tuple[int, ...], ...]
    allowed: Allowed | None

    @property
    def greedy(self) -> bool:
        """Whether nothing comes before taking the best."""
        return not self.steps and self.sampling.temperature == 0


def chain(
    sampling: Sampling, bad_words: Sequence[Sequence[int]] = (), allowed: Allowed | None = None
) -> Chain:
    """The steps that are on, in the order of the settings. `bad_words` are id sequences.

    Temperature 0 is the limit of small ones: the order of the tokens is fixed there, and only bans can still change
    the choice. Temperatures below `COLDEST` are taken for it.
    Raises MaturaError when a ban is given and `order` leaves it out.
    """
    given = {"bad_words": bool(bad_words), "allowed": allowed is not None}
    for name, there in given.items():
        if there and name not in sampling.order:
            raise MaturaError(f"the request has {name}, but its sampling.order leaves it out: add it there")
    if sampling.temperature < COLDEST:
        sampling = sampling.model_copy(update={"temperature": 0.0})
    on = [name for name in sampling.order if given.get(name, is_on(sampling, name))]
    if sampling.temperature == 0:
        at = on.index("temperature")
        steps, cuts = [*on[:at], *(name for name in on[at:] if name in BANS)], list[Step]()
    else:
        steps, cuts = _split(on)
    words = tuple(tuple(word) for word in bad_words)
    return Chain(sampling, _only(sampling, cuts), tuple(steps), words, allowed)


def _split(on: list[Step]) -> tuple[list[Step], list[Step]]:
    """The longest end that `kept` does at once, and what comes before."""
    at = len(on)
    while at and on[at - 1] in CUTS and (at == len(on) or CUTS.index(on[at - 1]) < CUTS.index(on[at])):
        at -= 1
    return on[:at], on[at:]


def _only(sampling: Sampling, cuts: Sequence[Step]) -> Sampling:
    """Settings with these cuts alone."""
    return Sampling(**{name: getattr(sampling, name) for name in cuts})


def choose(
    logits_V: Tensor,
    sampling: Sampling,
    seen: Sequence[int],
    position: int,
    *,
    bad_words: Sequence[Sequence[int]] = (),
    allowed: Allowed | None = None,
) -> int:
    """The next token id. `seen` are prompt and answer so far (for penalties and bans), `position` counts new tokens."""
    return draw(chain(sampling, bad_words, allowed), logits_V, seen, position)


def draw(chain: Chain, logits_V: Tensor, seen: Sequence[int], position: int) -> int:
    """`choose` with the steps worked out before."""
    return drawn(chain, logits_V, seen, position)[0]


def drawn(chain: Chain, logits_V: Tensor, seen: Sequence[int], position: int) -> tuple[int, float]:
    """`draw`, and the probability with which this token was drawn: after penalties, temperature and cuts."""
    scores_V = scores(chain, logits_V, seen, position) if chain.steps else logits_V
    if chain.sampling.temperature == 0:
        return int(scores_V.argmax()), 1.0
    kept_V, ids_V = kept(scores_V, chain.last)
    probs_V = torch.softmax(kept_V, -1)
    total_V = probs_V.double().cumsum(-1)
    point = uniform(chain.sampling.seed, position) * float(total_V[-1])
    index = min(int(torch.searchsorted(total_V, point, right=True)), len(total_V) - 1)
    return int(index if ids_V is None else ids_V[index]), float(probs_V[index])


def scores(chain: Chain, logits_V: Tensor, seen: Sequence[int], position: int) -> Tensor:
    """Scores [V] after `chain.steps`; what they remove is -inf."""
    sampling, answer = chain.sampling, seen[len(seen) - position :]
    scores_V = logits_V.float()
    for step in chain.steps:
        match step:
            case "logit_bias":
                scores_V = penalties.biased(scores_V, sampling.logit_bias)
            case "repetition_penalty":
                scores_V = penalties.repetition(scores_V, seen, sampling.repetition_penalty)
            case "presence_penalty":
                scores_V = penalties.presence(scores_V, answer, sampling.presence_penalty)
            case "frequency_penalty":
                scores_V = penalties.frequency(scores_V, answer, sampling.frequency_penalty)
            case "no_repeat_ngram":
                scores_V = penalties.without(scores_V, penalties.repeating(seen, sampling.no_repeat_ngram))
            case "bad_words":
                scores_V = penalties.without(scores_V, penalties.completing(seen, chain.bad_words))
            case "allowed":
                scores_V = _constrained(scores_V, chain.allowed, answer, logits_V)
            case "temperature" | "top_k" | "top_p" | "min_p" | "typical_p":
                kept_V, ids_V = kept(scores_V, _only(sampling, [step]))
                left_V = torch.full_like(scores_V, -torch.inf)
                scores_V = kept_V if ids_V is None else left_V.index_copy(0, ids_V, kept_V)
    return scores_V


def _constrained(
    scores_V: Tensor, allowed: Allowed | None, answer: Sequence[int], logits_V: Tensor
) -> Tensor:
    ids = None if allowed is None else allowed(answer)
    if ids is None:
        return scores_V
    if not ids or min(ids) < 0 or max(ids) >= len(scores_V):
        wrong = "no token at all" if not ids else f"ids outside of the {len(scores_V)} tokens"
        raise MaturaError(
            f"the constraint allows {wrong} after {len(answer)} new tokens; let it allow a stop token at its end"
        )
    return penalties.only(scores_V, ids, logits_V)


def kept(logits_V: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor | None]:
    """Scores after temperature that survive top-k, top-p (arXiv:1904.09751), min-p (arXiv:2407.01082) and typical
    sampling (arXiv:2202.00666), in this order.

    Returns (scores, ids); ids is None when nothing is cut, and the order is the vocabulary's. At least one token
    always stays.
    """
    scores_V = logits_V.float() / sampling.temperature
    ids_V: Tensor | None = None
    if sampling.top_k or sampling.top_p < 1 or sampling.min_p:
        scores_V, ids_V = _best(scores_V, sampling)
    if sampling.typical_p < 1:
        at_V = _typical(scores_V, sampling.typical_p)
        scores_V, ids_V = scores_V[at_V], at_V if ids_V is None else ids_V[at_V]
    return scores_V, ids_V


def _best(scores_V: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """What top-k, top-p and min-p keep, from the most likely on."""
    head = sampling.top_k or FIRST_LOOK
    best_V, ids_V = scores_V.topk(min(head, len(scores_V)))
    normalizer = best_V.logsumexp(-1) if sampling.top_k else scores_V.logsumexp(-1)
    if not sampling.top_k and not _enough(best_V, normalizer, sampling):
        best_V, ids_V = scores_V.sort(descending=True, stable=True)
    if sampling.top_p < 1:
        before_V = (best_V - normalizer).exp().cumsum(-1).roll(1)
        before_V[0] = 0
        count = int((before_V < sampling.top_p).sum())
        best_V, ids_V = best_V[:count], ids_V[:count]
    if sampling.min_p:
        count = max(1, int(((best_V - best_V[0]).exp() >= sampling.min_p).sum()))
        best_V, ids_V = best_V[:count], ids_V[:count]
    return best_V, ids_V


def _enough(best_V: Tensor, normalizer: Tensor, sampling: Sampling) -> bool:
    """Whether the tokens looked at hold everything that top-p and min-p could keep: sorting all is slow."""
    by_mass = sampling.top_p < 1 and float((best_V - normalizer).exp().sum()) >= sampling.top_p
    by_share = sampling.min_p > 0 and float((best_V[-1] - best_V[0]).exp()) < sampling.min_p
    return by_mass or by_share


def _typical(scores_V: Tensor, mass: float) -> Tensor:
    """Indices of the tokens whose surprise is nearest to the entropy, as many as hold `mass`; ties stay together."""
    logprobs_V = torch.log_softmax(scores_V, -1)
    probs_V = logprobs_V.exp()
    entropy = -(logprobs_V * probs_V).nansum()
    distance_V = (-logprobs_V - entropy).abs()
    nearest_V, order_V = distance_V.sort()
    last = int((probs_V[order_V].cumsum(-1) < mass).sum())
    return (distance_V <= nearest_V[min(last, len(nearest_V) - 1)]).nonzero()[:, 0]
