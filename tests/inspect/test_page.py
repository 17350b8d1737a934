"""The pages: one file, the right numbers, and no text that turns into code."""

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from matura.core.errors import MaturaError
from matura.core.settings import Sampling
from matura.inspect import page
from matura.inspect.attention import Attentions, record
from matura.inspect.heads import patterns
from matura.inspect.page import attention_page, embedded, tokens_page
from matura.inspect.reading import Inputs, Reading, inputs
from matura.inspect.tokens import Candidate, Cut, Expectation, Expectations, expectations
from tests.model import tiny
from tests.tiny_models import chatml, network

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<!--<script>",
    '"><img src=x onerror=alert(1)>',
    "'-alert(1)-'",
    "{{ 7*7 }}",
    "&lt;b&gt; \u2028 \u202e",
)
VOID = {"meta", "input", "br", "link", "img"}


class Parsed(HTMLParser):
    """All elements with their attributes, the texts of scripts, and that every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data

    @property
    def policy(self) -> str:
        (found,) = (
            a["content"] for t, a in self.elements if a.get("http-equiv") == "Content-Security-Policy"
        )
        return found or ""


def hostile() -> Attentions:
    ids = list(range(len(HOSTILE)))
    (found,) = record(tiny.build(tiny.llama_config()), Inputs(target=Reading(tuple(ids), HOSTILE)))
    return found


def test_json_cannot_leave_its_element() -> None:
    data = {"texts": list(HOSTILE)}
    text = embedded(data)
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == data


def test_the_attention_page_holds_the_weights() -> None:
    found = hostile()
    parsed = Parsed(attention_page([found], "a <model>", HOSTILE[0], {"from": 2, "to": 1, "drop": True}))
    data = json.loads(parsed.scripts[0])
    assert data["start"] == {"from": 2, "to": 1, "drop": True}
    (part,) = data["parts"]
    numbers = np.frombuffer(base64.b64decode(part["weights"]), "<u2").reshape(2, 4, 6, 6)
    np.testing.assert_allclose(numbers / 65535, found.weights_LHTS.numpy(), atol=1e-5)
    assert (part["layers"], part["heads"], part["sinks"], part["causal"]) == ([0, 1], [0, 1, 2, 3], [0], True)
    np.testing.assert_allclose(part["scores"]["first"], patterns(found)["first"].numpy(), atol=1e-5)


def test_pages_are_one_file_and_say_what_attention_is_not() -> None:
    text = attention_page([hostile()], "m", "t")
    assert "Attention is not explanation" in text
    for parsed in (Parsed(text), Parsed(tokens_page(guesses(), "m", "t", {}))):
        names = {tag for tag, _ in parsed.elements}
        assert not names & {"link", "img", "iframe", "object", "base", "form"}
        assert not [a for _, a in parsed.elements if {"src", "href", "action"} & set(a)]
        assert not [a for _, a in parsed.elements if any(name.startswith("on") for name in a)]
        assert parsed.policy.startswith("default-src 'none'")


def test_only_the_pages_own_script_may_run() -> None:
    parsed = Parsed(attention_page([hostile()], HOSTILE[0], HOSTILE[1]))
    assert [a.get("type") for tag, a in parsed.elements if tag == "script"] == ["application/json", None]
    digest = base64.b64encode(hashlib.sha256(parsed.scripts[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in parsed.policy
    assert "unsafe-inline" not in parsed.policy.partition("script-src")[2]
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("):
        assert way not in parsed.scripts[1]
    assert not Parsed(tokens_page(guesses(), HOSTILE[0], HOSTILE[1], {})).scripts


def guesses() -> Expectations:
    rows = tuple(
        Expectation(i, i, text, 0.25, 2, 2.0, 3.0, (Candidate(9, text, 0.5),), Cut(3, 0.9, 0.0), 0.125, 0.5)
        for i, text in enumerate(HOSTILE)
    )
    return Expectations(rows, (HOSTILE[0],), pseudo=True)


def test_the_tokens_page_shows_every_number_and_text_as_text() -> None:
    text = tokens_page(guesses(), HOSTILE[0], HOSTILE[1], {"top_k": 3})
    rows = re.findall(r"<tr class=\"cut\">.*?</tr>", text, re.DOTALL)
    assert len(rows) == len(HOSTILE)
    cells = [html.unescape(re.sub(r"<[^>]+>", "", c)) for c in re.findall(r"<td.*?</td>", rows[0], re.DOTALL)]
    assert cells[:10] == ["0", "0.2500", "2", "2.00", "3.00", "3", "90.0%", "0.0000", "0.1250", "0.5000"]
    assert cells[10] == HOSTILE[0].replace(" ", "·") + " 0.500"
    assert "Pseudo-perplexity" in text
    assert "top_k 3" in text
    assert "49" not in re.sub(
        r"<style>.*?</style>", "", text, flags=re.DOTALL
    )  # a template in a text is text


def test_a_plain_tokens_page() -> None:
    model, tokenizer = network(), chatml().tokenizer
    given = inputs(model.config, tokenizer, "hello 12", begin=0)
    text = tokens_page(expectations(model, tokenizer, given, sampling=Sampling(top_k=2)), "m", "hello 12", {})
    assert "Perplexity" in text
    assert "Pseudo" not in text
    assert "second model" not in text
    Parsed(text)


def test_pages_that_no_browser_would_like_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "MAX_BYTES", 700)
    with pytest.raises(MaturaError, match=r"would hold 768 B, more than 700 B; choose fewer layers or heads"):
        attention_page([hostile()], "m", "t")
    monkeypatch.setattr(page, "MAX_TOKENS", 5)
    with pytest.raises(MaturaError, match="at most 5 tokens and this text has 6; shorten it, or write"):
        attention_page([hostile()], "m", "t")


STAND_IN = Path(__file__).parent / "stand_in_browser.js"


def browse(text: str, *steps: list[str]) -> dict[str, Any]:
    """What the page shows after these steps, in a stand-in for a browser."""
    parsed = Parsed(text)
    given = json.dumps({"data": parsed.scripts[0], "script": parsed.scripts[1], "steps": steps})
    done = subprocess.run(["node", str(STAND_IN)], input=given, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_the_script_shows_the_numbers() -> None:
    found = hostile()
    text = attention_page([found], "m", "t", {"from": 4, "to": 1})
    shown = browse(text)
    assert shown["matrix"][1][1:] == [page.shown(label) for label in HOSTILE]
    mean = found.weights_LHTS[-1].mean(0).tolist()
    assert [row[1:] for row in shown["matrix"][2:]] == [[f"{w:.3f}" for w in row] for row in mean]
    weights = found.weights_LHTS[:, :, 4, 1]
    assert shown["finder"][1][1] == f"{float(weights.max()):.3f}"
    layer, head = divmod(int(weights.argmax()), 4)
    assert shown["finder"][1][0] == f"{layer}.{head}"
    one = browse(text, ["layer", "0"], ["head", "3"])
    assert one["matrix"][5][1:] == [f"{w:.3f}" for w in found.weights_LHTS[0, 3, 3].tolist()]
    dropped = browse(text, ["layer", "0"], ["head", "3"], ["sink", "on"])
    row = found.weights_LHTS[0, 3, 3]
    rest = torch.cat([torch.zeros(1), row[1:] / row[1:].sum()]).tolist()
    assert [float(cell) for cell in dropped["matrix"][5][1:-1]] == pytest.approx(rest, abs=2e-3)
    assert float(dropped["matrix"][5][-1]) == pytest.approx(float(row[0]), abs=1e-3)
    assert not dropped["made"].keys() - {"tr", "th", "td", "caption", "option", "button"}
