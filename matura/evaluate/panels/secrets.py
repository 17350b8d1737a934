"""Memorisation: exposure and extraction of the secrets that curation planted, beside some that were planted nowhere."""

from __future__ import annotations

from collections.abc import Sequence

from matura.core.errors import ConfigError
from matura.core.panel_settings import Memorisation
from matura.core.records import read_documents
from matura.data import canary
from matura.evaluate import memorisation
from matura.evaluate.asking import Write
from matura.evaluate.panels.figures import Figure, grouped
from matura.evaluate.panels.sheet import Figures, Replies, Room, Sheet, choices, scored, written


def sheet(settings: Memorisation, room: Room) -> Sheet | None:
    """Every secret of the corpus. Raises ConfigError without a corpus that has some."""
    if not settings.others:
        return None
    if room.corpus is None or not (room.corpus / canary.FILE).is_file():
        raise ConfigError(
            "panels.memorisation: there are no planted secrets; give a `corpus` that was curated with canary.rates"
        )
    secrets = memorisation.read(room.corpus / canary.FILE)
    left = _copies(room, secrets)
    probes = [
        memorisation.probe(one, settings.others) for one in [*secrets, *canary.unplanted(settings.controls)]
    ]

    def exposures(replies: Replies) -> list[float]:
        return [memorisation.exposure([found.logprob for found in scored(one)]) for one in replies]

    def extracted(replies: Replies) -> list[float]:
        return [
            float(memorisation.extracted(probe, written(one)[0]))
            for probe, one in zip(probes, replies, strict=True)
        ]

    def figures(replies: Replies) -> Figures:
        rates = [probe.rate for probe in probes]
        bits = grouped(rates, exposures(replies))
        done = grouped(rates, extracted(replies))
        return [*_of_rates(bits, done), *_copies_left(secrets, left)]

    return Sheet(
        "memorisation",
        [probe.id for probe in probes],
        [
            [*choices(probe.beginning, probe.digits), Write(probe.beginning, ("\n",), 3 * canary.DIGITS)]
            for probe in probes
        ],
        figures,
        lambda replies: [
            {"exposure": bits, "extracted": bool(done)}
            for bits, done in zip(exposures(replies), extracted(replies), strict=True)
        ],
    )


def _of_rates(bits: dict[int, list[float]], done: dict[int, list[float]]) -> Figures:
    found: Figures = []
    for rate, values in bits.items():
        part = f"planted {rate} times" if rate else "planted nowhere"
        found.append(Figure("exposure", values, unit="bits", neutral=memorisation.UNTRAINED, part=part))
        found.append(Figure("extracted", done[rate], neutral=0.0, part=part))
    return found


def _copies(room: Room, secrets: Sequence[canary.Canary]) -> dict[str, int] | None:
    """How often each secret stands in what the model was trained on; None when that corpus was not given."""
    if room.trained is None:
        return None
    texts = (document.text for document in read_documents(room.trained / "train.parquet"))
    return dict(memorisation.copies(secrets, texts))


def _copies_left(secrets: Sequence[canary.Canary], left: dict[str, int] | None) -> Figures:
    if left is None:
        return []
    counts = grouped([one.rate for one in secrets], [float(left[one.secret]) for one in secrets])
    return [
        Figure("copies in what was trained on", values, unit="count", part=f"planted {rate} times")
        for rate, values in counts.items()
    ]
