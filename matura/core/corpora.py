"""The corpora among a stage's inputs, as one row of documents with their sources."""

from collections.abc import Iterator, Mapping
from typing import Any

from matura.core.artifact import Artifact
from matura.core.records import Document, read_documents

UNNAMED = "corpus"
"""The source of documents that name none: those of a corpus with a single one."""


def corpora(inputs: Mapping[str, Any]) -> dict[str, Artifact]:
    """The corpora by the name of their setting (`corpus`, `corpora.NAME.path`), in the order of names."""
    found = {name: one for name, one in inputs.items() if isinstance(one, Artifact) and one.kind == "corpus"}
    return dict(sorted(found.items()))


def documents(inputs: Mapping[str, Any], file: str) -> Iterator[tuple[str, Document]]:
    """(source, document) of every document in `file` of every corpus.

    Of several corpora, each is one source; the documents of a single one have their `origin`. Raises FormatError.
    """
    for setting, corpus in corpora(inputs).items():
        name = "" if setting == "corpus" else setting.removeprefix("corpora.").removesuffix(".path")
        for document in read_documents(corpus.file(file)):
            yield name or document.meta.get("origin", "") or UNNAMED, document
