import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from implant_model.errors import UsageError
from implant_model.storage.uri import join, normalise, relative

_CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
_KEYS = st.text(_CHARACTERS, min_size=1)
_NAMES = st.binary(min_size=1, max_size=40).filter(
    lambda name: b"\0" not in name and b"/" not in name and name not in (b".", b"..")
)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("/data/a.tar", "file:///data/a.tar"),
        ("/data//x/../a.tar/", "file:///data/a.tar"),
        ("//data/a.tar", "file:///data/a.tar"),
        ("/", "file:///"),
        ("/data/a b+%2F#?.tar", "file:///data/a%20b%2B%252F%23%3F.tar"),
        ("/data/ü.tar", "file:///data/%C3%BC.tar"),
        ("file:///data/a%20b.tar", "file:///data/a%20b.tar"),
        ("file://localhost/data/a.tar", "file:///data/a.tar"),
        ("FILE:///data", "file:///data"),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("s3://bucket/a/b/", "s3://bucket/a/b"),
        ("S3://bucket/a", "s3://bucket/a"),
        ("s3://bucket/a b+%2F//x?y#z", "s3://bucket/a b+%2F//x?y#z"),
    ],
)
def test_normalise_gives_the_one_spelling(uri: str, expected: str) -> None:
    assert normalise(uri) == expected
    assert normalise(expected) == expected


def test_normalise_makes_a_path_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert normalise("a b.tar") == (tmp_path / "a b.tar").as_uri()
    assert normalise(".") == tmp_path.as_uri()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("gs://bucket/a", "scheme 'gs'; a path, file:///path or s3://bucket/key is expected"),
        ("s3a://bucket/a", "scheme 's3a'"),
        ("https://host/a.tar", "scheme 'https'"),
        ("s3:/bucket/a", "lacks the '//'"),
        ("file:/data/a", "lacks the '//'"),
        ("s3://", "names no valid bucket"),
        ("s3:///a", "names no valid bucket"),
        ("s3://b/a", "names no valid bucket"),
        ("s3://my bucket/a", "has 'my bucket'"),
        ("s3://bucket/\udcff", "not valid UTF-8"),
        ("file://server/share/a.tar", "names the host 'server'"),
        ("file://", "names the host ''"),
        ("", "is empty"),
        ("/data/a\0b", "NUL"),
        ("file:///data/a%00b", "NUL"),
    ],
)
def test_normalise_refuses_what_is_no_name_of_an_object(uri: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        normalise(uri)


@given(_KEYS)
def test_a_key_survives_to_the_letter(key: str) -> None:
    uri = f"s3://bucket/{key}"
    assert join("s3://bucket", key) == uri
    assert relative(uri, "s3://bucket") == key
    assert relative(f"s3://bucket/in/{key}", "s3://bucket/in") == key


@given(_NAMES)
def test_a_file_name_of_any_bytes_survives(name: bytes) -> None:
    path = os.fsdecode(b"/data/" + name)
    uri = normalise(path)
    assert uri == Path(path).as_uri()
    assert normalise(uri) == uri
    relative(uri, "/data").encode()


@given(st.text(_CHARACTERS, min_size=1).filter(lambda name: "/" not in name and name.strip(".")))
def test_join_and_relative_are_inverse_on_disk(name: str) -> None:
    uri = join("/data/in", "sub", name)
    assert relative(uri, "/data/in") == f"sub/{name}"
    assert join("/data/in", relative(uri, "file:///data/in/")) == uri


def test_a_file_name_that_is_not_utf8_stays_encoded() -> None:
    assert relative("file:///data/caf%E9.tar", "/data") == "caf%E9.tar"


@pytest.mark.parametrize(
    ("uri", "root", "expected"),
    [
        ("s3://bucket/in/a.tar", "s3://bucket/in/a.tar", "a.tar"),
        ("s3://bucket/in/a.tar", "s3://bucket/in/", "a.tar"),
        ("s3://bucket/in//a.tar", "s3://bucket/in", "/a.tar"),
        ("s3://bucket/a/b.tar", "s3://bucket", "a/b.tar"),
        ("s3://bucket//", "s3://bucket", "/"),
        ("s3://bucket/in/", "s3://bucket/in", "in/"),
        ("file:///data/a%20b.tar", "/data/a b.tar", "a b.tar"),
        ("file:///data/a/b.tar", "/", "data/a/b.tar"),
    ],
)
def test_relative_is_the_name_below_the_root(uri: str, root: str, expected: str) -> None:
    assert relative(uri, root) == expected


@pytest.mark.parametrize(
    ("uri", "root"),
    [("s3://bucket/input/a.tar", "s3://bucket/in"), ("file:///data2/a.tar", "/data")],
)
def test_relative_refuses_what_is_not_below_the_root(uri: str, root: str) -> None:
    with pytest.raises(ValueError, match="is not below"):
        relative(uri, root)


def test_join_keeps_one_slash_between_parts() -> None:
    assert join("s3://bucket/out/", "predictions", "a b.parquet") == (
        "s3://bucket/out/predictions/a b.parquet"
    )
    assert join("s3://bucket", "x") == "s3://bucket/x"
    assert join("/out/", "model=a@b", "u.parquet") == "file:///out/model%3Da%40b/u.parquet"
    assert join("/", "x") == "file:///x"
