"""What every task of a run needs to know: one frozen object, made once by the driver."""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property

from implant_model.decode.preprocess import Preprocessing
from implant_model.decode.version import DECODE_VERSION
from implant_model.limits import Limits
from implant_model.networks.spec import Precision
from implant_model.privacy import IdentifierPolicy, Protector
from jobs.tables.schema import SCHEMA_VERSION, UNIT_MEMBERS

UNIT_BYTES = 512 << 20
"""A unit also ends after this many bytes of members: some 50 uncompressed 16-bit radiographs, so
that progress is seen and little is done again after a crash."""


@dataclass(frozen=True)
class Recipe:
    """How members become rows.

    Attributes:
        output: Normalised URI of the output.
        model: The package's `name@hash`.
        preprocessing: The package's own.
        limits: Bounds on archives, members and decodes.
        protector: What is done with identifiers; refers to the key where there is one.
        unit_members: Most members of a unit, at most 1,000.
        unit_bytes: A unit ends with the member that takes it to this size.
        precision: Of the networks, see `implant_model.classifier.Classifier`.
        require_sandbox: Read nothing where a part of the decoder's sandbox is missing.
    """

    output: str
    model: str
    preprocessing: Preprocessing
    limits: Limits
    protector: Protector
    unit_members: int = UNIT_MEMBERS
    unit_bytes: int = UNIT_BYTES
    precision: Precision = "float32"
    require_sandbox: bool = False

    @property
    def is_private(self) -> bool:
        """Whether the rows hold identifiers as they are."""
        return self.protector.policy is IdentifierPolicy.KEEP

    def is_full(self, members: int, num_bytes: int) -> bool:
        """Return whether a unit of so many members and bytes ends."""
        return members >= self.unit_members or num_bytes >= self.unit_bytes

    @cached_property
    def configuration_hash(self) -> str:
        """Hash of all that decides what a unit's rows say; the output's place is no part of it."""
        decides = {
            "decode": DECODE_VERSION,
            "schema": SCHEMA_VERSION,
            "model": self.model,
            "limits": asdict(self.limits),
            "identifiers": str(self.protector.policy),
            "key": self.protector.key_id,
            "unit": [self.unit_members, self.unit_bytes],
        }
        if self.precision != "float32":  # not named, so that older outputs keep their hash
            decides["precision"] = self.precision
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]
