"""Identifiers dropped, replaced by pseudonyms under a key, or kept: decided where they are read."""

import hashlib
import hmac
import unicodedata
from dataclasses import dataclass
from enum import StrEnum

from implant_model.errors import UsageError
from implant_model.pseudonym_key import Key

_TRIMMED = " \t\r\n\0\u00a0\u200b\ufeff"
_PSEUDONYM = 16  # bytes: two of 10**9 patients share one with probability 1e-21
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
        key: Of the pseudonyms. Its secret is never shown, logged, written or pickled: another
            process resolves it by its source.

    Raises:
        UsageError: From the constructor: pseudonyms without a key.
    """

    policy: IdentifierPolicy
    key: Key | None = None

    def __post_init__(self) -> None:
        if self.key is None and self.policy is IdentifierPolicy.PSEUDONYMISE:
            raise UsageError(
                "Pseudonyms need a key: give --key-file or IMPLANT_KEY_FILE, or choose "
                "--identifiers drop."
            )

    def resolve(self) -> None:
        """Read the key, if there is one, before the first member needs it.

        Raises:
            UsageError: It cannot be read in this process.
        """
        if self.key is not None:
            self.key.secret  # noqa: B018  reads it

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
        stripped = trimmed(value or "")
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
        """Id of the key for the tables and the configuration's hash; None without one."""
        return None if self.key is None else self.key.key_id

    def _digest(self, kind: str, data: bytes | memoryview) -> str:
        code = hmac.new(self.key.secret if self.key else b"", kind.encode() + b"\0", hashlib.sha256)
        code.update(data)
        return code.digest()[:_PSEUDONYM].hex()


def trimmed(value: str) -> str:
    """Return an identifier without what surrounds it: DICOM's padding, blanks, invisible marks.

    The tables and a registry's file are trimmed alike, so that a no-break space (U+00A0), a zero
    width space (U+200B) or a byte order mark (U+FEFF) behind a number does not keep them apart.
    """
    return value.strip(_TRIMMED)
