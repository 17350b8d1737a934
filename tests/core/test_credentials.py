import pytest

from matura.core.credentials import filled, problem, shown, without_secrets
from matura.core.errors import ConfigError


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me:secret@host/db",
        "postgresql://me:se/cr?et@host/db",
        "postgresql://me:half${PW}@host/db",
        "mysql+pymysql://host/db?password=secret",
        "mssql+pyodbc:///?odbc_connect=Driver%3Dx%3BUID%3Dme%3BPWD%3Dsecret",
        "https://me:secret@host/a.txt",
        "https://secret-token@host/a.txt",
        "https://host/a.txt?X-Amz-Signature=secret&x=1",
        "https://host/a.txt?access_token=secret",
        "https://host/a.txt?api_key=secret",
        "s3://KEY:sec/ret@bucket/a",
    ],
)
def test_secrets_in_clear_are_found_and_never_repeated(address: str) -> None:
    found = problem(address)
    assert found is not None
    assert "secret" not in found
    assert "sec/ret" not in shown(f"cannot open {address}, sorry")
    assert "secret" not in shown(f'"{address}" is wrong') or "token" in address.partition("@")[0]


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me:${PW}@host:5432/db",
        "postgresql://me@host/db?sslkey=/a/b.key",
        "postgresql://host:5432/db",
        "sqlite:////home/a:b@c/x.db",
        "https://host:443/@user/page?keyword=x&page=2",
        "https://${TOKEN}@host/a?sig=${SIG}",
        "abfss://container@account.dfs.core.windows.net/x",
        "s3://bucket/a@b:c/d",
        "hf:own/data@main",
        "/a/folder:with@signs",
    ],
)
def test_addresses_without_secrets_pass(address: str) -> None:
    assert problem(address) is None
    assert shown(address) == address or "@" in address.partition("//")[2]


def test_variables_are_filled_and_encoded_where_they_must_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PW", "p@ss/w:rd")
    monkeypatch.setenv("HOST", "db:5432")
    assert filled("postgresql://me:${PW}@${HOST}/db") == "postgresql://me:p%40ss%2Fw%3Ard@db:5432/db"
    assert filled("https://h/a?sig=${PW}") == "https://h/a?sig=p%40ss%2Fw%3Ard"
    monkeypatch.delenv("PW")
    with pytest.raises(ConfigError, match="PW is not set"):
        filled("postgresql://me:${PW}@host/db")


def test_values_of_variables_are_taken_out_of_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PW", "p@ss")
    said = without_secrets("no login with p@ss or p%40ss at db", "postgresql://me:${PW}@db/x")
    assert said == "no login with *** or *** at db"
