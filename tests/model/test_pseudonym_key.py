"""The key of the pseudonyms: what is refused, where it comes from, and that it never travels."""

import base64
import hashlib
import os
import pickle
import random
from pathlib import Path

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from implant_model.errors import UsageError
from implant_model.privacy import IdentifierPolicy, Protector
from implant_model.pseudonym_key import Key, check_key, fingerprint, read_key
from tests.support.object_store import CREDENTIALS, ObjectStore

KEY = hashlib.sha256(b"a test's key").hexdigest().encode()


def key_file(folder: Path, content: bytes = KEY, mode: int = 0o600) -> Path:
    path = folder / "key"
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_key_file_is_read_without_its_newline(tmp_path: Path, end: bytes) -> None:
    assert read_key(str(key_file(tmp_path, KEY + end))) == KEY


@given(st.binary(min_size=32, max_size=64))
def test_bytes_that_are_no_text_are_a_key(secret: bytes) -> None:
    check_key(bytes(range(128, 140)) + secret + b"\x80", "The key")


def test_keys_as_people_make_them_are_accepted() -> None:
    """In base 64 all but one of some thousand; whoever meets that one makes another."""
    rng = random.Random(0)
    refused = 0
    for _ in range(2000):
        raw = rng.randbytes(32)
        check_key(raw.hex().encode(), "The key")
        check_key(base64.b32encode(raw), "The key")
        for made in (base64.b64encode(raw), base64.urlsafe_b64encode(raw)):
            try:
                check_key(made, "The key")
            except UsageError:
                refused += 1
    assert refused <= 12


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has 0 bytes; 32 to 65536"),
        (b"0f3c9a7be2d1485\n", "has 15 bytes"),
        (b"0f3c9a7be2d148560f3c9a7be2d1485", "has 31 bytes"),
        (bytes(32), "only 1 different bytes"),
        (b"abc" * 20, "only 3 different bytes"),
        (b"0123456789" * 10, "only 10 different bytes"),
        (b"0123456789" * 10_000, "has 65537 bytes"),
        (b"correct horse battery staple and some more words", "reads as words"),
        (b"Correct-Horse-Battery-Staple-Registry-2026-01-31", "reads as words"),
        (b"registryofhipsandkneesnorthernregion", "reads as words"),
        (b"2026-01-31T22:15:00+01:00/1987-03-04/abcdefghij", "reads as words"),
        (b"\xef\xbb\xbf" + KEY, "byte order mark"),
        (KEY + b" \n", "a blank at its begin or end"),
        (b" " + KEY, "a blank at its begin or end"),
        (KEY + b"\n\n", "a blank at its begin or end"),
    ],
)
def test_what_is_no_secret_is_refused_with_the_remedy(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = key_file(tmp_path, content)
    with pytest.raises(UsageError, match=message) as caught:
        read_key(str(path))
    assert "python -m jobs.keys new" in str(caught.value)
    assert not content.strip() or content[:12].decode(errors="replace") not in str(caught.value)


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o620, 0o666])
def test_a_key_that_others_may_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    path = key_file(tmp_path, mode=mode)
    with pytest.raises(UsageError, match=f"mode {mode:04o}: others .* Run: chmod 600 {path}"):
        read_key(str(path))


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o440])  # the last as Kubernetes mounts it
def test_a_key_of_its_account_is_read(tmp_path: Path, mode: int) -> None:
    assert read_key(str(key_file(tmp_path, mode=mode))) == KEY


def test_a_key_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no key file .*absent"):
        read_key(str(tmp_path / "absent"))
    with pytest.raises(UsageError, match=f"{tmp_path} cannot be read: Is a directory"):
        read_key(str(tmp_path))
    with pytest.raises(UsageError, match="no environment variable NOT_THERE"):
        read_key("env:NOT_THERE")


def test_a_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", KEY.decode())
    assert Key.load("env:SECRET").secret == KEY


def test_keys_of_aws(
    object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"AWS_ENDPOINT_URL": object_store.endpoint, **CREDENTIALS}.items():
        monkeypatch.setenv(name, value)
    manager, kms = (
        boto3.Session().client(name, endpoint_url=object_store.endpoint)
        for name in ("secretsmanager", "kms")
    )
    manager.create_secret(Name="text", SecretString=KEY.decode() + "\n")
    manager.create_secret(Name="bytes", SecretBinary=KEY)
    for name in ("text", "bytes"):
        assert read_key(f"aws-secretsmanager:{name}") == KEY
    with pytest.raises(UsageError, match="ResourceNotFoundException; check the name"):
        read_key("aws-secretsmanager:nowhere")
    master = kms.create_key()["KeyMetadata"]["KeyId"]
    sealed = kms.encrypt(KeyId=master, Plaintext=KEY)["CiphertextBlob"]
    (tmp_path / "key.kms").write_bytes(sealed)
    assert read_key(f"aws-kms:{tmp_path / 'key.kms'}") == KEY


def test_only_the_reference_travels(tmp_path: Path) -> None:
    protector = Protector(IdentifierPolicy.PSEUDONYMISE, Key.load(str(key_file(tmp_path))))
    sent = pickle.dumps(protector)
    for form in (KEY, KEY.hex().encode(), base64.b64encode(KEY), bytes.fromhex(KEY.decode())):
        assert form not in sent
    received = pickle.loads(sent)
    assert received == protector
    assert received.identifier("patient", "x") == protector.identifier("patient", "x")


def test_a_key_in_memory_alone_does_not_travel() -> None:
    with pytest.raises(TypeError, match="does not travel"):
        pickle.dumps(Protector(IdentifierPolicy.PSEUDONYMISE, Key.of(KEY)))


def test_another_key_on_another_node_is_found(tmp_path: Path) -> None:
    path = key_file(tmp_path)
    sent = pickle.dumps(Protector(IdentifierPolicy.PSEUDONYMISE, Key.load(str(path))))
    path.write_bytes(KEY[::-1])
    with pytest.raises(UsageError, match="is another one than the run's") as caught:
        pickle.loads(sent).resolve()
    assert fingerprint(KEY) in str(caught.value)
    assert os.uname().nodename in str(caught.value)
