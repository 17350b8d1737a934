"""llama.cpp as the judge of a GGUF file, through xllamacpp: `python -m benchmarks.llama_cpp judge SETTINGS`."""

from __future__ import annotations

import json
import sys
import urllib.request
from typing import Any


def judge(settings: dict[str, Any]) -> dict[str, Any]:
    """What llama.cpp makes of `file` with `adapters` on it: ids of the texts, the chat as ids, greedy answers to
    prompts of ids.

    Deterministic: one sequence at a time, and a cache in float32 that no earlier prompt has filled.
    """
    ask = _Server(settings["file"], settings["context"], settings["threads"], settings.get("adapters", []))
    return {
        "template": ask.template,
        "ids": [ask.tokenize(text, special=False) for text in settings["texts"]],
        "surrounded": [ask.tokenize(text, special=False, whole=True) for text in settings["texts"]],
        "chat": ask.chat(settings["messages"]) if settings["messages"] else None,
        "answers": [ask.answer(ids, settings["new"]) for ids in settings["prompts"]],
    }


class _Server:
    """llama.cpp's own server, inside this process."""

    def __init__(self, file: str, context: int, threads: int, adapters: list[str]) -> None:
        import xllamacpp

        parameters = xllamacpp.CommonParams()
        parameters.model.path = file
        parameters.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(adapter) for adapter in adapters]
        parameters.n_ctx = context
        parameters.n_parallel = 1
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
        parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        parameters.endpoint_props = True
        parameters.fit_params = parameters.warmup = False
        parameters.verbosity = 0
        self._server = xllamacpp.Server(parameters)
        self.template = self._call("/props").get("chat_template")

    def tokenize(self, text: str, *, special: bool, whole: bool = False) -> list[int]:
        body = {"content": text, "add_special": whole, "parse_special": special}
        tokens: list[int] = self._call("/tokenize", body)["tokens"]
        return tokens

    def chat(self, messages: list[dict[str, str]]) -> list[int]:
        """The conversation up to where the assistant answers, by llama.cpp's own engine of templates."""
        prompt = self._call("/apply-template", {"messages": messages})["prompt"]
        return self.tokenize(prompt, special=True)

    def answer(self, ids: list[int], new: int) -> dict[str, Any]:
        """The likeliest tokens with the log-probability of each (None when one of them is half a character)."""
        body = {"prompt": ids, "n_predict": new, "temperature": 0, "return_tokens": True}
        made = self._call("/completion", {**body, "cache_prompt": False, "n_probs": 1})
        chosen = [one["logprob"] for one in made.get("completion_probabilities", [])]
        # Tokens of half a character are left out there, and which ones is not said.
        whole = len(chosen) == len(made["tokens"])
        return {"ids": made["tokens"], "logprobs": chosen if whole else None, "text": made["content"]}

    def _call(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self._server.listening_address + path, data, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=600) as answer:
            found: dict[str, Any] = json.loads(answer.read())
            return found


if __name__ == "__main__":
    print(json.dumps(judge(json.loads(sys.argv[2]))))
