"""Matura in Python: `matura.load("smollm2-135m-instruct")` and what one does with a model.

>>> model = matura.load("smollm2-135m-instruct")
>>> model.generate("The capital of France is", max_new_tokens=8, temperature=0)
>>> for piece in model.chat_stream([{"role": "user", "content": "Hello"}]):
...     print(piece, end="", flush=True)
>>> generator = matura.pipeline("text-generation", model="smollm2-135m-instruct")
"""

from matura.api.loading import load, pull
from matura.api.model import LanguageModel
from matura.api.pipelines import Pipeline, pipeline
from matura.api.prompting import load_prompt

__all__ = ["LanguageModel", "Pipeline", "load", "load_prompt", "pipeline", "pull"]
