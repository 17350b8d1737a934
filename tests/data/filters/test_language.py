import pytest

from matura.core.errors import ConfigError
from matura.data.filters import language
from tests.data.filters.texts import documents

TEXTS = {
    "en": "The children went down to the river in the morning and came home when it was dark.",
    "de": "Die Kinder gingen am Morgen zum Fluss hinunter und kamen erst nach Hause, als es dunkel war.",
    "fr": "Les enfants sont descendus à la rivière le matin et sont rentrés quand il faisait nuit.",
    "es": "Los niños bajaron al río por la mañana y volvieron a casa cuando ya era de noche.",
    "ru": "Дети утром спустились к реке и вернулись домой, когда уже стемнело.",
    "zh": "孩子们早上到河边去，天黑以后才回家。他们都很高兴。",
    "ja": "子どもたちは朝、川へ行き、暗くなってから家に帰りました。",
    "el": "Τα παιδιά κατέβηκαν το πρωί στο ποτάμι και γύρισαν στο σπίτι όταν νύχτωσε.",
}


@pytest.fixture(scope="module")
def detect():
    return language.make().detect


@pytest.mark.parametrize("code", TEXTS)
def test_a_sentence_is_told(code, detect):
    found, score = language.identify(TEXTS[code], detect)
    assert found == code
    assert 0.5 < score <= 1


def test_languages_are_written_counted_and_measured():
    outcome = language.make()(documents(*TEXTS.values(), TEXTS["en"], kind="txt"))
    assert [one.meta["language"] for one in outcome.kept] == [*TEXTS, "en"]
    assert outcome.kept[0].meta["kind"] == "txt"
    assert outcome.counts["language.en"] == 2
    assert outcome.counts["language.de"] == 1
    assert len(outcome.measures["language.score"]) == len(TEXTS) + 1


def test_keep_routes_by_language():
    outcome = language.make(keep=("de", "fr"))(documents(*TEXTS.values(), "12 34 + 5"))
    assert [one.meta["language"] for one in outcome.kept] == ["de", "fr"]
    reasons = [one.reason for one in outcome.dropped]
    assert reasons == ["language"] * (len(TEXTS) - 2) + ["undetermined"]
    assert outcome.dropped[0].detail.startswith("en, score 0.")


@pytest.mark.parametrize(
    "text", ["", "  \n", "ok", "12345 67890 " * 20, "?! ... " * 30, "Berlin, 1990-2000", "日本語"]
)
def test_too_few_letters_are_undetermined(text, detect):
    assert language.identify(text, detect) == ("und", 0.0)


def test_undetermined_texts_stay_unless_languages_are_chosen():
    assert language.make()(documents("ok")).kept[0].meta["language"] == "und"
    assert language.make(keep=("en", "und"))(documents("ok")).kept
    assert language.make(keep=("en",))(documents("ok")).dropped


def test_a_language_the_source_named_stays_where_none_is_told():
    assert language.make()(documents("ok", language="cs")).kept[0].meta["language"] == "cs"
    assert language.make()(documents(TEXTS["en"], language="cs")).kept[0].meta["language"] == "en"


def test_thresholds_differ_by_language():
    texts = documents(TEXTS["en"], TEXTS["de"])
    outcome = language.make(thresholds={"en": 1.0})(texts)
    assert [one.meta["language"] for one in outcome.kept] == ["und", "de"]
    outcome = language.make(threshold=1.0, thresholds={"en": 0.1})(texts)
    assert [one.meta["language"] for one in outcome.kept] == ["en", "und"]


def test_a_long_text_is_read_all_over(detect):
    head = (TEXTS["en"] + " ") * 14
    assert len(head) > language.PIECE
    text = head + (TEXTS["fr"] + "\n") * 100
    assert detect(text).keys() >= {"en"}
    assert language.identify(text, detect)[0] == "fr"


def test_what_the_detector_cannot_read_is_no_error(detect):
    assert language.identify("\0" + TEXTS["de"], detect)[0] == "de"
    assert language.identify("\ud800 " + TEXTS["de"], detect)[0] == "de"


def test_source_code_passes_as_it_is():
    (document,) = documents("def f(x): return x", kind="code", language="python")
    outcome = language.make(keep=("de",))([document])
    assert outcome.kept == [document]
    assert outcome.kept[0].meta["language"] == "python"


@pytest.mark.parametrize("settings", [{"keep": ("xx",)}, {"thresholds": {"deu": 0.5}}])
def test_an_unknown_code_is_an_error(settings):
    with pytest.raises(ConfigError, match=r"no language that can be told.*\ben\b"):
        language.make(**settings)
