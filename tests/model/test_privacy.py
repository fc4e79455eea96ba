import hashlib
import hmac
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from implant_model.errors import UsageError
from implant_model.privacy import IdentifierPolicy, Protector, load_key
from tests.support.paths import ROOT

KEY = b"0f3c9a7be2d14856"
OTHER = b"another key, 16 bytes or more"
DROP = Protector(IdentifierPolicy.DROP)
PSEUDONYMISE = Protector(IdentifierPolicy.PSEUDONYMISE, KEY)
KEEP = Protector(IdentifierPolicy.KEEP)
names = st.text(min_size=1).filter(lambda text: bool(text.strip(" \t\r\n\0")))


def test_a_pseudonym_is_the_documented_one() -> None:
    whole = hmac.new(KEY, b"patient\x00PAT-0042", hashlib.sha256).hexdigest()
    assert PSEUDONYMISE.identifier("patient", "PAT-0042") == whole[:32]
    content = hmac.new(KEY, b"content\x00bytes of a file", hashlib.sha256).hexdigest()
    assert PSEUDONYMISE.content(b"bytes of a file") == content[:32]


def test_another_process_gives_the_same_pseudonym() -> None:
    program = (
        "from implant_model.privacy import *\n"
        f"p = Protector(IdentifierPolicy.PSEUDONYMISE, {KEY!r})\n"
        "print(p.identifier('patient', 'PAT-0042'), p.content(b'x'), p.key_id)"
    )
    command = [sys.executable, "-W", "error", "-c", program]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    here = (PSEUDONYMISE.identifier("patient", "PAT-0042"), PSEUDONYMISE.content(b"x"))
    assert tuple(shown.split()) == (*here, PSEUDONYMISE.key_id)


@given(names)
def test_kinds_and_keys_give_different_pseudonyms(value: str) -> None:
    other = Protector(IdentifierPolicy.PSEUDONYMISE, OTHER)
    shown = [PSEUDONYMISE.identifier(kind, value) for kind in ("patient", "study", "member")]
    shown += [other.identifier("patient", value)]
    assert len(set(shown)) == 4
    assert all(text is not None and len(text) == 32 for text in shown)
    assert all(value not in (text or "") for text in shown if len(value) > 4)


@given(names, st.sampled_from([" ", "\0", "\t", "  \0\0", "\n"]))
def test_padding_is_not_part_of_an_identifier(value: str, padding: str) -> None:
    for protector in (PSEUDONYMISE, KEEP):
        bare = protector.identifier("patient", value)
        assert protector.identifier("patient", padding + value + padding) == bare


def test_composed_and_decomposed_letters_are_one_patient() -> None:
    composed, decomposed = "M\u00fcller", "Mu\u0308ller"
    assert PSEUDONYMISE.identifier("patient", composed) == PSEUDONYMISE.identifier(
        "patient", decomposed
    )


@pytest.mark.parametrize("value", [None, "", "  ", "\0\0"])
@pytest.mark.parametrize("protector", [DROP, PSEUDONYMISE, KEEP], ids=lambda p: p.policy)
def test_no_identifier_stays_none(protector: Protector, value: str | None) -> None:
    assert protector.identifier("patient", value) is None


def test_drop_writes_nothing_even_with_a_key() -> None:
    protector = Protector(IdentifierPolicy.DROP, KEY)
    assert protector.identifier("patient", "PAT-0042") is None
    assert protector.content(b"x") is None


def test_keep_writes_what_is_there_and_valid_unicode() -> None:
    assert KEEP.identifier("patient", " M\u00fcller ") == "M\u00fcller"
    kept = KEEP.identifier("patient", "a\udce9b")
    assert kept == "a\\udce9b"
    assert PSEUDONYMISE.identifier("patient", "a\udce9b") is not None


def test_content_is_keyed_where_there_is_a_key() -> None:
    plain = hashlib.sha256(b"x").hexdigest()[:32]
    assert KEEP.content(b"x") == plain
    keyed = Protector(IdentifierPolicy.KEEP, KEY).content(b"x")
    assert keyed == PSEUDONYMISE.content(b"x") != plain


def test_key_id_tells_keys_apart_and_is_no_pseudonym() -> None:
    assert DROP.key_id is None
    other = Protector(IdentifierPolicy.PSEUDONYMISE, OTHER).key_id
    assert PSEUDONYMISE.key_id != other
    assert len(PSEUDONYMISE.key_id or "") == 12


@pytest.mark.parametrize("kind", ["", "content", "key-id", "a\0b"])
def test_kinds_cannot_be_confused(kind: str) -> None:
    with pytest.raises(ValueError, match="no kind of identifier"):
        PSEUDONYMISE.identifier(kind, "PAT-0042")


def test_the_key_is_not_shown() -> None:
    assert KEY.decode() not in f"{PSEUDONYMISE!r} {PSEUDONYMISE}"


def test_pseudonyms_need_a_key() -> None:
    with pytest.raises(UsageError, match="Pseudonyms need a key"):
        Protector(IdentifierPolicy.PSEUDONYMISE)


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_key_file_is_read_without_its_newline(tmp_path: Path, end: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(KEY + end)
    assert load_key(path) == KEY


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has 0 bytes; 16 to 65536"),
        (b"0f3c9a7be2d1485\n", "has 15 bytes"),
        (bytes(32), "only 1 different bytes"),
        (b"abc" * 20, "only 3 different bytes"),
        (b"0123456789" * 10_000, "has 65537 bytes"),
    ],
)
def test_what_is_no_secret_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        load_key(path)
    assert not content.strip() or content[:12].decode() not in str(caught.value)


def test_a_key_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no key file .*absent"):
        load_key(tmp_path / "absent")
    with pytest.raises(UsageError, match=f"{tmp_path} cannot be read: Is a directory"):
        load_key(tmp_path)
