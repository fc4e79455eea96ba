"""The key of the pseudonyms: where it is, whether it is a secret, and how processes share it.

What travels between processes is a reference: the source and the key's id. Each process that needs
the key reads it from there and keeps it in its memory alone, so that it lies in no object store, no
spilled file and no log.

Sources are a file (`/etc/implant/key`), an environment variable (`env:NAME`), a secret of AWS
Secrets Manager (`aws-secretsmanager:ID`), and a file or object that AWS KMS decrypts
(`aws-kms:URI`).
"""

import hashlib
import hmac
import os
import re
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from implant_model.errors import UsageError

MIN_KEY: Final = 32
"""Bytes. Pseudonyms have 128 bits; text of fewer characters may hold less than that."""
MAX_KEY: Final = 65_536
MIN_DIFFERENT: Final = 12
"""Different bytes: 64 random hexadecimal digits have 16, 43 of base64 some 31."""
MIN_RUNS: Final = 0.43
"""Runs of small letters, capitals, digits or signs a character: 0.65 in base64, 0.2 to 0.42 in
words and dates. One of a thousand keys of 32 random bytes in base64 falls below."""
KEY_VARIABLE: Final = "IMPLANT_KEY_FILE"
REMEDY: Final = "Make one with: python -m jobs.keys new FILE."
KEY_ID_DIGITS: Final = 12
_FINGERPRINT: Final = b"key-id\0"
_CODED: Final = re.compile(rb"[0-9a-f-]{64,}|[0-9A-F-]{64,}|[A-Z2-7]{52,}=*")  # base 16 and 32
_RUN: Final = re.compile(rb"[a-z]+|[A-Z]+|[0-9]+|[^a-zA-Z0-9]")
_EDGES: Final = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")


class Key:
    """A secret, or a reference to one that is resolved where it is first needed.

    Args:
        source: Where it is; None for one that is in memory alone, which cannot travel.
        key_id: Its fingerprint, 12 hexadecimal digits, see `fingerprint`.
        secret: The secret; None until it is needed.
    """

    def __init__(self, source: str | None, key_id: str, secret: bytes | None = None) -> None:
        self.source = source
        self.key_id = key_id
        self._secret = secret

    @classmethod
    def load(cls, source: str) -> "Key":
        """Read a key from its source.

        Raises:
            UsageError: It cannot be read, or is no secret; the key's content is never shown.
        """
        secret = read_key(source)
        absolute = source if ":" in source else os.path.abspath(source)
        return cls(absolute, fingerprint(secret), secret)

    @classmethod
    def of(cls, secret: bytes) -> "Key":
        """Take a key that is in memory alone.

        Raises:
            UsageError: It is no secret.
        """
        check_key(secret, "The key")
        return cls(None, fingerprint(secret), secret)

    @property
    def secret(self) -> bytes:
        """The secret, resolved the first time it is asked for in a process.

        Raises:
            UsageError: It cannot be read here, or is another key than the one referred to.
        """
        if self._secret is None:
            secret = read_key(self.source or "")
            if fingerprint(secret) != self.key_id:
                raise UsageError(
                    f"The key at {self.source} on {os.uname().nodename} is another one than the "
                    f"run's (key id {fingerprint(secret)}, expected {self.key_id}); give every "
                    "node the same key."
                )
            self._secret = secret
        return self._secret

    def __repr__(self) -> str:
        return f"Key({self.source!r}, {self.key_id!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and self.key_id == other.key_id

    def __hash__(self) -> int:
        return hash(self.key_id)

    def __reduce__(self) -> tuple[type["Key"], tuple[str, str]]:
        if self.source is None:
            raise TypeError("A key that is in memory alone does not travel; load it by a source.")
        return Key, (self.source, self.key_id)


def fingerprint(secret: bytes) -> str:
    """Return a key's id, which tells keys apart and nothing of their content."""
    return hmac.new(secret, _FINGERPRINT, hashlib.sha256).hexdigest()[:KEY_ID_DIGITS]


def read_key(source: str) -> bytes:
    """Read a key from its source; a newline at its end is not part of it.

    Raises:
        UsageError: Not there, not readable, readable by others, or no secret.
    """
    scheme, _, rest = source.partition(":")
    read = _SCHEMES.get(scheme) if rest else None
    secret = read(rest) if read else _read_file(source.removeprefix("file://"))
    secret = secret.removesuffix(b"\n").removesuffix(b"\r")
    check_key(secret, f"The key in {source}")
    return secret


def check_key(secret: bytes, what: str) -> None:
    """Refuse what is no secret of at least 128 bits, as far as its bytes show.

    Args:
        secret: The key, without its newline.
        what: Names it in the message.

    Raises:
        UsageError: It has a byte order mark or a blank at an edge, is too short or too long, has
            few different bytes, or reads as words, a date or a number.
    """
    is_text = all(32 <= byte < 127 or byte in b"\t\r\n" for byte in secret)
    if secret.startswith(_EDGES) or (is_text and secret != secret.strip()):
        raise UsageError(
            f"{what} has a byte order mark or a blank at its begin or end, which one editor puts "
            f"there and another takes away. Save it without. {REMEDY}"
        )
    if not MIN_KEY <= len(secret) <= MAX_KEY:
        raise UsageError(
            f"{what} has {len(secret)} bytes; {MIN_KEY} to {MAX_KEY} are accepted. {REMEDY}"
        )
    different = len(set(secret))
    if different < MIN_DIFFERENT:
        raise UsageError(
            f"{what} has only {different} different bytes; it would be guessed. {REMEDY}"
        )
    if _reads_as_text(secret):
        raise UsageError(
            f"{what} reads as words, a date or a number; it would be guessed. {REMEDY}"
        )


def _reads_as_text(secret: bytes) -> bool:
    """Whether it is printable, and changes between kinds of characters too seldom to be random."""
    if not all(32 <= byte < 127 for byte in secret):
        return False
    letters = sum(1 for byte in secret if chr(byte).isalpha())
    if _CODED.fullmatch(secret):
        return not 0 < letters < len(secret)
    has_both = re.search(rb"[a-z]", secret) and re.search(rb"[A-Z]", secret)
    runs = len(_RUN.findall(secret))
    return not has_both or letters < len(secret) / 2 or runs < MIN_RUNS * len(secret)


def _read_file(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            secret = file.read(MAX_KEY + 1)
    except FileNotFoundError:
        raise UsageError(f"There is no key file {path}. {REMEDY}") from None
    except OSError as error:
        raise UsageError(f"The key file {path} cannot be read: {error.strerror}.") from None
    if stat.S_IMODE(mode) & (stat.S_IRWXO | stat.S_IWGRP):
        raise UsageError(
            f"The key file {path} has mode {stat.S_IMODE(mode):04o}: others may read or change it. "
            f"Run: chmod 600 {path}"
        )
    return secret


def _read_variable(name: str) -> bytes:
    value = os.environb.get(name.encode())
    if value is None:
        raise UsageError(f"There is no environment variable {name} with a key. {REMEDY}")
    return value


def _read_secret(name: str) -> bytes:
    from implant_model.storage.secrets import read_secret  # boto3 takes half a second to import

    return read_secret(name)


def _decrypt(uri: str) -> bytes:
    from implant_model.storage.secrets import decrypt

    return decrypt(uri)


_SCHEMES: Final[Mapping[str, Callable[[str], bytes]]] = {
    "env": _read_variable,
    "aws-secretsmanager": _read_secret,
    "aws-kms": _decrypt,
}
