"""Our models inside lm-evaluation-harness, so that any of its tasks runs on them.

    import lm_eval
    from matura.evaluate.lm_eval_model import model

    lm_eval.simple_evaluate(model=model("smollm2-135m-instruct"), tasks=["arc_easy"])

lm-eval is an optional extra (`pip install matura[lm-eval]`); this module is imported only by those who want it, and
importing it makes `--model matura` known to lm-eval.

Here its conventions hold, also where exams of our own differ: special tokens that are spelled out in a text are meant,
and a text to roll over comes after the token that begins texts, else the one that ends them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model

from matura.core.errors import MaturaError
from matura.evaluate import asking, score
from matura.infer import text
from matura.infer.engine import Request
from matura.infer.sampling import Sampling
from matura.model import store
from matura.model.logprobs import continuation_scores
from matura.model.transformer import Transformer
from matura.tokenizer import conversation
from matura.tokenizer.conversation import Format

MAX_GEN_TOKS = 256
"""Longest answer where a task does not say (as lm-eval's own models)."""
BATCH = 16
Encoded = tuple[tuple[str, str], list[int], list[int]]
"""(context and continuation as texts, their token ids)."""


@register_model("matura")
class MaturaLM(TemplateLM):
    """A model artifact as lm-eval sees a model. `pretrained` is its folder."""

    def __init__(
        self,
        pretrained: str | os.PathLike[str],
        max_length: int | None = None,
        batch_size: int | str = BATCH,
        device: str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        """`max_length`: longest input, at most the model's context; `batch_size`: answers written together ("auto" is
        ours). Rows to score are packed without padding, whatever the batch size.

        Raises MaturaError for another device than this model's, for a `max_length` above its context, and for a model
        that does not continue text.
        """
        super().__init__()
        if device not in (None, "cpu"):
            raise MaturaError(f"device: models run on the CPU here, not on {device!r}")
        self.network: Transformer = store.load_for_inference(os.fspath(pretrained))
        self.format: Format = conversation.load(os.fspath(pretrained))
        asking.Reader(self.network, self.format)  # refuses encoders and judges of texts
        context = self.network.config.context
        if max_length is not None and not 1 < max_length <= context:
            raise MaturaError(f"max_length: expected 2 to {context}, the model's context, got {max_length}")
        self.max_length = max_length or context
        self.batch_size = batch_size if isinstance(batch_size, int) else BATCH
        self.name = os.path.basename(os.fspath(pretrained))

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        found = self.format.tokenizer.eos_id
        if found is None:
            raise MaturaError("this model has no token that ends a text, which lm-eval needs")
        return found

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text with nothing before it."""
        begin = self.format.tokenizer.bos_id
        return self.eot_token_id if begin is None else begin

    @property
    def tokenizer_name(self) -> str:
        """Names the tokenizer in lm-eval's own cache of requests."""
        return self.name

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Ids of a text, after what the tokenizer puts before any text unless `add_special_tokens` is False."""
        ids = self.format.tokenizer.encode_markup(string)
        before = list(self.format.tokenizer.prefix_ids)
        if add_special_tokens is False or ids[: len(before)] == before:
            return ids
        return [*before, *ids]

    def chat_template(self, chat_template: bool | str = False) -> str:
        """The template's text, which lm-eval keeps with its results."""
        return self.format.template or ""

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The conversation as the model's own template writes it."""
        return self.format.text(chat_history, generation_prompt=add_generation_prompt)

    def _loglikelihood_tokens(
        self, requests: Sequence[Encoded], disable_tqdm: bool = False, **kwargs: Any
    ) -> list[tuple[float, bool]]:
        rows = [score.fitting((context, new), self.max_length) for _, context, new in requests]
        found = continuation_scores(self.network, rows)
        answers = [(math.fsum(value for value, _ in one), all(greedy for _, greedy in one)) for one in found]
        for (asked, _, _), answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial("loglikelihood", asked, answer)
        return answers

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """The log-probability of whole texts, in windows that do not overlap."""
        begin = [self.prefix_token_id]
        cut = [
            score.rolling(
                [*begin, *self.tok_encode(one.args[0], add_special_tokens=False)], 1, self.max_length
            )
            for one in requests
        ]
        scored = iter(continuation_scores(self.network, [row for one in cut for row in one]))
        sums = [math.fsum(value for _ in one for value, _ in next(scored)) for one in cut]
        for one, value in zip(requests, sums, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", one.args, value)
        return sums

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """What the model writes, cut before the first of the texts that end it."""
        stops = tuple(dict.fromkeys((*self.format.stop_ids, self.eot_token_id)))
        asked = []
        for one in requests:
            context, settings = one.args
            sampling = self._sampling(settings)
            room = self.max_length - sampling.max_new_tokens
            if room < 1:
                raise MaturaError(
                    f"max_gen_toks: {sampling.max_new_tokens} leave no room in {self.max_length} tokens"
                )
            ids = self.tok_encode(context) or [self.prefix_token_id]
            asked.append(Request(ids[-room:], sampling, stops))
        written = text.answers(self.network, self.format.tokenizer, asked, batch=self.batch_size)
        for one, answer in zip(requests, written, strict=True):
            self.cache_hook.add_partial("generate_until", one.args, answer.text)
        return [one.text for one in written]

    def _sampling(self, settings: Mapping[str, Any]) -> Sampling:
        """lm-eval's generation settings as ours. Raises MaturaError for one that is not known here."""
        left = dict(settings)
        until = left.pop("until", None) or []
        drawn = bool(left.pop("do_sample", False))
        names = {"max_gen_toks": "max_new_tokens", "max_new_tokens": "max_new_tokens", "seed": "seed"}
        names |= {name: name for name in ("temperature", "top_k", "top_p", "min_p")} if drawn else {}
        values = {ours: left.pop(theirs) for theirs, ours in names.items() if theirs in left}
        if not drawn:
            left = {
                name: one
                for name, one in left.items()
                if name not in ("temperature", "top_k", "top_p", "min_p")
            }
            values["temperature"] = 0
        if left:
            raise MaturaError(f"generation settings that are not known here: {', '.join(sorted(left))}")
        stop = (until,) if isinstance(until, str) else tuple(until)
        return Sampling(**{"max_new_tokens": MAX_GEN_TOKS, **values, "stop": stop})


def model(reference: str, **settings: Any) -> MaturaLM:
    """A model of the workspace (or a folder, or one to be pulled) for `lm_eval.simple_evaluate(model=...)`."""
    from matura.core.workspace import Workspace

    return MaturaLM(Workspace().find(reference).path, **settings)
