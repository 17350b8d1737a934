"""Frequent function words by language: running text holds them, lists and tables of data hardly do.

They stand in for Gopher's English ones (arXiv:2112.11446, table A1: at least two of them) in documents of another
language. Where there is no list, because none is known here or because the language writes without spaces, the rule
does not apply.
"""

from __future__ import annotations

_WORDS = {
    "af": "die en van is het nie wat om",
    "ar": "في من على أن إلى التي عن لا",
    "az": "və bir bu ilə üçün da ki olan",
    "be": "і у не на што з да як",
    "bg": "на и в да се за от не",
    "bs": "i u je se na da za su",
    "ca": "de la que el els les amb per",
    "cs": "a se v na je že to s",
    "da": "og i at er det en til som",
    "de": "der die und das ist nicht mit von",
    "el": "και το να του της η για με",
    "es": "de la que el en los del por",
    "et": "ja on ei et see ka oli kui",
    "eu": "eta da ez du ere bat baina dira",
    "fa": "و در به از که این را با",
    "fi": "ja on ei että se oli hän mutta",
    "fr": "de la et le les des que dans",
    "ga": "an na agus ar is go le bhí",
    "gl": "de que e o os do da para",
    "he": "של את על לא זה עם הוא כי",
    "hi": "के में है की से का को और",
    "hr": "i u je se na da za su",
    "hu": "a az és hogy nem egy is volt",
    "hy": "և է որ են այս մեջ էր համար",
    "id": "yang dan di untuk dengan ini dari tidak",
    "is": "og að er í á sem ekki var",
    "it": "di e che la il non per una",
    "lt": "ir kad į su yra iš tai bet",
    "lv": "un ir ar no par kas bet arī",
    "mk": "на и во да се од за не",
    "ms": "yang dan di untuk dengan ini dari tidak",
    "nb": "og i er det på som til av",
    "nl": "de het een van en dat niet voor",
    "no": "og i er det på som til av",
    "pl": "w i na z się nie do że",
    "pt": "de que o os do da para não",
    "ro": "de și în a la cu pe nu",
    "ru": "и в не на что с по как",
    "sk": "a sa v na je že to s",
    "sl": "in je v na se da za so",
    "sq": "e të në dhe për me që një",
    "sr": "и у је се на да за i u je se na da za",
    "sv": "och i att det som en på är",
    "tl": "ang ng sa na mga at ay hindi",
    "tr": "ve bir bu da için de ile olarak",
    "uk": "і в не на що з до та",
    "ur": "کے میں ہے کی سے کا کو اور",
    "vi": "và của là các có được trong cho",
}

STOP_WORDS: dict[str, tuple[str, ...]] = {code: tuple(words.split()) for code, words in _WORDS.items()}
"""ISO 639-1 code to words, as they are written within a sentence."""

_WITHOUT = "am bn gu ja ka kn km ko ku lo ml mr my or pa ta te th yo zh"
WITHOUT = tuple(_WITHOUT.split())
"""Languages that can be told apart but have no list."""
