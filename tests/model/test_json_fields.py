import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from implant_model.errors import PackageError
from implant_model.json_fields import Fields, parse


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not readable as JSON"),
        (b"{", "not readable as JSON"),
        (b"\xff\xfe{}", "not readable as JSON"),
        (b'{"a": 1, "a": 2}', "'a' occurs twice"),
        (b'{"a": {"b": 1, "b": 1}}', "'b' occurs twice"),
        (b'{"a": NaN}', "NaN is no number"),
        (b'{"a": -Infinity}', "-Infinity is no number"),
        (b'{"a": 1e999}', "out of range"),
        (b'{"a": "\\ud800"}', "not readable as JSON"),
        (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
        (b"9" * 10_000, "not readable as JSON"),
    ],
)
def test_senseless_json_is_refused_in_a_sentence(data: bytes, message: str) -> None:
    with pytest.raises(PackageError, match=message):
        parse(data, "package.json")


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        json.loads(data)
    except ValueError:
        with pytest.raises(PackageError, match=r"package\.json is not readable"):
            parse(data, "package.json")


def test_fields_are_taken_with_type_and_range() -> None:
    fields = Fields({"t": "x", "n": 1, "w": 3, "l": [1], "o": {"a": 2}, "c": "b", "z": None}, "f")
    assert fields.text("t") == "x"
    assert fields.number("n", 0, 1) == 1.0
    assert fields.whole("w", 3, 3) == 3
    assert fields.items("l", 1, 1) == [1]
    assert fields.nested("o").whole("a", 0, 9) == 2
    assert fields.choice("c", ("a", "b")) == "b"
    assert fields.whole_or_none("z", 0, 1) is None
    assert fields.text_or_none("missing") is None
    fields.close()


@pytest.mark.parametrize("value", [True, "1", None, [], 1.5, -1, 11, 10**400])
def test_a_whole_number_is_nothing_else(value: object) -> None:
    with pytest.raises(PackageError, match=r"f: n is .*; a whole number from 0 to 10 is expected"):
        Fields({"n": value}, "f").whole("n", 0, 10)


@pytest.mark.parametrize("value", [False, "1", None, [], -0.1, 1.1, 10**400])
def test_a_number_is_nothing_else(value: object) -> None:
    with pytest.raises(PackageError, match=r"f: n is .*; a number from 0 to 1 is expected"):
        Fields({"n": value}, "f").number("n", 0, 1)


@pytest.mark.parametrize("value", [1, None, "", "x" * 11, ["a"]])
def test_a_text_is_nothing_else(value: object) -> None:
    with pytest.raises(PackageError, match="a text of 1 to 10 characters is expected"):
        Fields({"t": value}, "f").text("t", 10)


def test_missing_unknown_and_wrong_shapes_are_named() -> None:
    with pytest.raises(PackageError, match="f lacks the field 'a'"):
        Fields({}, "f").take("a")
    with pytest.raises(PackageError, match=r"f has unknown fields \('b'\)"):
        Fields({"b": 1}, "f").close()
    with pytest.raises(PackageError, match=r"f is \[1\]; an object is expected"):
        Fields([1], "f")
    with pytest.raises(PackageError, match="f: a is 1; an object is expected"):
        Fields({"a": 1}, "f").mapping("a")
    with pytest.raises(PackageError, match="a list of 2 to 3 items"):
        Fields({"a": [1]}, "f").items("a", 2, 3)
    with pytest.raises(PackageError, match="f: a is 3; b or c is expected"):
        Fields({"a": 3}, "f").choice("a", ("b", "c"))


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(PackageError) as caught:
        Fields({"a": "x" * 100_000}, "f").whole("a", 0, 1)
    assert len(str(caught.value)) < 300
