import hashlib
import hmac
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from implant_model.errors import UsageError
from implant_model.privacy import IdentifierPolicy, Protector, trimmed
from implant_model.pseudonym_key import Key
from tests.support.paths import ROOT

KEY = hashlib.sha256(b"a test's key").hexdigest().encode()
OTHER = hashlib.sha256(b"another").hexdigest().encode()
DROP = Protector(IdentifierPolicy.DROP)
PSEUDONYMISE = Protector(IdentifierPolicy.PSEUDONYMISE, Key.of(KEY))
KEEP = Protector(IdentifierPolicy.KEEP)
names = st.text(min_size=1).filter(lambda text: bool(trimmed(text)))


def test_a_pseudonym_is_the_documented_one() -> None:
    whole = hmac.new(KEY, b"patient\x00PAT-0042", hashlib.sha256).hexdigest()
    assert PSEUDONYMISE.identifier("patient", "PAT-0042") == whole[:32]
    content = hmac.new(KEY, b"content\x00bytes of a file", hashlib.sha256).hexdigest()
    assert PSEUDONYMISE.content(b"bytes of a file") == content[:32]


def test_another_process_gives_the_same_pseudonym() -> None:
    program = (
        "from implant_model.privacy import *\nfrom implant_model.pseudonym_key import Key\n"
        f"p = Protector(IdentifierPolicy.PSEUDONYMISE, Key.of({KEY!r}))\n"
        "print(p.identifier('patient', 'PAT-0042'), p.content(b'x'), p.key_id)"
    )
    command = [sys.executable, "-W", "error", "-c", program]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    here = (PSEUDONYMISE.identifier("patient", "PAT-0042"), PSEUDONYMISE.content(b"x"))
    assert tuple(shown.split()) == (*here, PSEUDONYMISE.key_id)


@given(names)
def test_kinds_and_keys_give_different_pseudonyms(value: str) -> None:
    other = Protector(IdentifierPolicy.PSEUDONYMISE, Key.of(OTHER))
    shown = [PSEUDONYMISE.identifier(kind, value) for kind in ("patient", "study", "member")]
    shown += [other.identifier("patient", value)]
    assert len(set(shown)) == 4
    assert all(text is not None and len(text) == 32 for text in shown)
    assert all(value not in (text or "") for text in shown if len(value) > 4)


@given(names, st.sampled_from([" ", "\0", "\t", "  \0\0", "\n", "\u00a0", "\u200b", "\ufeff"]))
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
    protector = Protector(IdentifierPolicy.DROP, Key.of(KEY))
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
    keyed = Protector(IdentifierPolicy.KEEP, Key.of(KEY)).content(b"x")
    assert keyed == PSEUDONYMISE.content(b"x") != plain


def test_key_id_tells_keys_apart_and_is_no_pseudonym() -> None:
    assert DROP.key_id is None
    other = Protector(IdentifierPolicy.PSEUDONYMISE, Key.of(OTHER)).key_id
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
