"""Documents of one or several corpora, with the source each belongs to."""

from pathlib import Path

from matura.core import artifact
from matura.core.corpora import corpora, documents
from matura.core.records import Document, write_documents
from tests.tiny_models import corpus


def test_sources_of_one_and_of_several(tmp_path: Path) -> None:
    plain = corpus(tmp_path / "plain", documents=4)
    draft = artifact.begin(tmp_path / "mixed", kind="corpus", stage="curate", version=1, config={}, inputs={})
    rows = [Document("a", "x", "a.md", {"origin": "wiki"}), Document("b", "y", "b.md")]
    write_documents(draft.path / "train.parquet", rows)
    mixed = draft.commit({})
    one = [source for source, _ in documents({"corpus": mixed, "other": tmp_path}, "train.parquet")]
    assert one == ["wiki", "corpus"]
    several = {"corpora.z.path": mixed, "corpora.a.path": plain}
    assert list(corpora(several)) == ["corpora.a.path", "corpora.z.path"]
    assert [source for source, _ in documents(several, "train.parquet")] == ["a", "a", "z", "z"]
