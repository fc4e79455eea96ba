"""Identifiers dropped, replaced by pseudonyms under a key, or kept: decided where they are read."""

import hashlib
import hmac
import unicodedata
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from implant_model.errors import UsageError

MIN_KEY = 16  # bytes; the pseudonyms have 128 bits, and a shorter key would be guessed first
MAX_KEY = 65_536
MIN_KEY_VARIETY = 6  # different bytes: a run of zeros is no key, 16 random hex digits have more
_PSEUDONYM = 16  # bytes: two of 10**9 patients share one with probability 1e-21
_KEY_ID = 6
_CONTENT = "content"
_FINGERPRINT = "key-id"


class IdentifierPolicy(StrEnum):
    """What becomes of identifiers: `--identifiers`."""

    DROP = "drop"
    PSEUDONYMISE = "pseudonymise"
    KEEP = "keep"


@dataclass(frozen=True)
class Protector:
    """Applies one policy under one key.

    Attributes:
        policy: What becomes of identifiers.
        key: Secret of the pseudonyms; never shown, logged or written.

    Raises:
        UsageError: From the constructor: pseudonyms without a key, or a key that is no secret.
    """

    policy: IdentifierPolicy
    key: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.key is None and self.policy is IdentifierPolicy.PSEUDONYMISE:
            raise UsageError(
                "Pseudonyms need a key: give --key-file or IMPLANT_KEY_FILE, or choose "
                "--identifiers drop."
            )
        if self.key is not None:
            _check_key(self.key, "The key")

    def identifier(self, kind: str, value: str | None) -> str | None:
        """Return what the tables may hold of an identifier.

        Args:
            kind: `patient`, `study`, ...: one value gets another pseudonym for each kind.
            value: As it is in the file; blanks and NUL around it are DICOM's padding.

        Returns:
            None for a missing or blank value and under `drop`; 32 hex digits under `pseudonymise`,
            the same in every process and archive; else the value, always valid Unicode.

        Raises:
            ValueError: `kind` is empty, reserved or holds a NUL.
        """
        if not kind or "\0" in kind or kind in (_CONTENT, _FINGERPRINT):
            raise ValueError(f"{kind!r} is no kind of identifier.")
        stripped = (value or "").strip(" \t\r\n\0")
        if not stripped or self.policy is IdentifierPolicy.DROP:
            return None
        if self.policy is IdentifierPolicy.KEEP:
            return stripped.encode(errors="backslashreplace").decode()
        plain = unicodedata.normalize("NFC", stripped)
        return self._digest(kind, plain.encode(errors="surrogatepass"))

    def content(self, data: bytes | memoryview) -> str | None:
        """Return a hash by which equal members are found, 32 hex digits; None under `drop`.

        Keyed wherever there is a key: a plain hash lets anyone who holds an image look it up.
        """
        if self.policy is IdentifierPolicy.DROP:
            return None
        if self.key is None:
            return hashlib.sha256(data).digest()[:_PSEUDONYM].hex()
        return self._digest(_CONTENT, data)

    @property
    def key_id(self) -> str | None:
        """Fingerprint of the key for the configuration's hash, 12 hex digits; None without one."""
        return self._digest(_FINGERPRINT, b"")[: 2 * _KEY_ID] if self.key is not None else None

    def _digest(self, kind: str, data: bytes | memoryview) -> str:
        code = hmac.new(self.key or b"", kind.encode() + b"\0", hashlib.sha256)
        code.update(data)
        return code.digest()[:_PSEUDONYM].hex()


def load_key(path: str | Path) -> bytes:
    """Read the key of the pseudonyms; a newline at its end is not part of it.

    Raises:
        UsageError: Not there, not readable, shorter than 16 bytes or no secret; the key's content
            is never shown.
    """
    remedy = "Make one with: head -c 32 /dev/urandom | base64 > FILE; chmod 600 FILE."
    try:
        with Path(path).open("rb") as file:
            key = file.read(MAX_KEY + 1).rstrip(b"\r\n")
    except FileNotFoundError:
        raise UsageError(f"There is no key file {path}. {remedy}") from None
    except OSError as error:
        raise UsageError(f"The key file {path} cannot be read: {error.strerror}.") from None
    _check_key(key, f"The key in {path}")
    return key


def _check_key(key: bytes, what: str) -> None:
    if not MIN_KEY <= len(key) <= MAX_KEY:
        raise UsageError(f"{what} has {len(key)} bytes; {MIN_KEY} to {MAX_KEY} are accepted.")
    if len(set(key)) < MIN_KEY_VARIETY:
        raise UsageError(
            f"{what} has only {len(set(key))} different bytes; it would be guessed. "
            "Use random bytes."
        )
