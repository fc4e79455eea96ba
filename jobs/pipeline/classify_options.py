"""The command line of `classify`, checked and frozen."""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from implant_model import storage
from implant_model.errors import UsageError
from implant_model.limits import Limits
from implant_model.networks.spec import Precision
from implant_model.package.load import ModelPackage
from implant_model.privacy import IdentifierPolicy, Protector
from implant_model.pseudonym_key import KEY_VARIABLE, Key
from implant_model.storage.object_list import ObjectList
from jobs.entry.command import Parser
from jobs.entry.folder import checked_folder
from jobs.pipeline.plan import check_reasons
from jobs.pipeline.recipe import Recipe

_BATCH_SIZE = "images in one pass of the networks; default 16, on a GPU what fits its memory"
_PRECISION = (
    "of the networks: float32, as they were calibrated (default), or bfloat16, faster where the "
    "processor or GPU has it; probabilities then differ in the second digit"
)
_MAX_REJECTED = "share of rejected members above which the exit code is 3; default 1"
_MAX_DRIFT = "shift against the last weeks above which the exit code is 3; default 0.25"
_METRICS = (
    "write the run's figures there for Prometheus, such as /var/lib/node_exporter/implant.prom"
)
_RETRY = "read again the archives that have, or whose members have, one of these reasons"

KEY_HELP = (
    "key of the pseudonyms: a file, env:NAME, aws-secretsmanager:ID or aws-kms:URI that every "
    f"node can read; default: the variable {KEY_VARIABLE}"
)
_REQUIRE_SANDBOX = (
    "refuse a machine whose kernel cannot confine the decoder (seccomp, Landlock); by default a "
    "line names what is missing"
)
_KMS_KEY = "AWS KMS key, by id or ARN, that the store encrypts the output under; default: its own"
_MANIFEST = (
    "CSV or Parquet of key, size and etag, or manifest.json of an S3 Inventory, in the place of a "
    "listing of the INPUTs"
)
_REDO_OLDER = "read again the archives that an older version of the decode has read"


@dataclass(frozen=True)
class ClassifyOptions:
    """What a user asked of `classify`.

    Attributes:
        inputs: Normalised URIs.
        output: Normalised URI.
        model: Normalised URI of a model package.
        protector: What is done with identifiers.
        is_policy_asked_for: Whether the call names what is done with them.
        actors: Least and most classifier actors; None fits them to the cluster.
        gpus_per_actor: None fits it to the cluster.
        batch_size: Pictures in one pass of the networks; None fits it to the device.
        precision: Of the networks.
        max_rejected: Largest share of rejected members that still ends with exit code 0.
        max_drift: Largest population stability index that still ends with exit code 0.
        metrics_file: Normalised URI of a Prometheus text file, or None.
        report: Folder for a page about the output, or None.
        retry: Reasons for which an archive is read once more.
        redo_older: Read once more what an older version of the decode has read.
        require_sandbox: Read nothing where a part of the decoder's sandbox is missing.
        sse_kms_key_id: KMS key of the output, or None for what the bucket does by default.
        manifest: Lists the objects of the inputs in the place of their store, or None.
        dry_run: Only say what would be done.
        limit: Most archives to read.
    """

    inputs: tuple[str, ...]
    output: str
    model: str
    protector: Protector
    is_policy_asked_for: bool
    actors: tuple[int, int] | None
    gpus_per_actor: float | None
    batch_size: int | None
    precision: Precision
    max_rejected: float
    max_drift: float
    metrics_file: str | None
    report: Path | None
    retry: frozenset[str]
    redo_older: bool
    require_sandbox: bool
    sse_kms_key_id: str | None
    manifest: ObjectList | None
    dry_run: bool
    limit: int | None

    def __post_init__(self) -> None:
        if self.batch_size is not None:
            _check(self.batch_size >= 1, "--batch-size", self.batch_size, "a whole number from 1")
        _check(0 <= self.max_rejected <= 1, "--max-rejected", self.max_rejected, "0 to 1")
        _check(self.max_drift > 0, "--max-drift", self.max_drift, "a number above 0")
        if self.limit is not None:
            _check(self.limit >= 1, "--limit", self.limit, "a whole number from 1")
        if self.gpus_per_actor is not None:
            _check(self.gpus_per_actor >= 0, "--gpus-per-actor", self.gpus_per_actor, "0 or more")
        if self.sse_kms_key_id is not None and not storage.is_remote(self.output):
            raise UsageError(f"--sse-kms-key-id is for an output in S3; this is {self.output}.")
        for uri in self.inputs:
            if uri == self.output or uri.startswith(f"{self.output}/"):
                raise UsageError(f"The INPUT {uri} lies in the --output {self.output}.")
            if self.output.startswith(f"{uri.rstrip('/')}/"):
                raise UsageError(
                    f"The --output {self.output} lies in the INPUT {uri}: the next run would read "
                    "its tables as archives. Name an output beside it."
                )

    def recipe(self, package: ModelPackage) -> Recipe:
        """Return how members become rows under these options and this model."""
        return Recipe(
            self.output, package.id, package.preprocessing, Limits(), self.protector,
            precision=self.precision, require_sandbox=self.require_sandbox,
        )  # fmt: skip


def parse_classify(arguments: Sequence[str] | None, description: str | None) -> ClassifyOptions:
    """Read the command line.

    Raises:
        UsageError: It is not of the contract's form; one sentence explains why.
    """
    parser = Parser("classify", description)
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help="archive, radiograph, folder or s3:// prefix")
    add("--output", required=True, metavar="URI", help="where the tables are, or will be")
    add("--model", required=True, metavar="URI", help="folder or prefix of a model package")
    policies = [str(policy) for policy in IdentifierPolicy]
    add("--identifiers", choices=policies, help="default: pseudonymise with a key, else drop")
    add("--key-file", metavar="PATH", help=KEY_HELP)
    add("--actors", type=_actors, metavar="MIN[:MAX]", help="classifier actors; default: to fit")
    add("--gpus-per-actor", type=float, metavar="F", help="0 for CPUs; a fraction shares a GPU")
    add("--batch-size", type=int, metavar="N", help=_BATCH_SIZE)
    add("--precision", choices=get_args(Precision), default="float32", help=_PRECISION)
    add("--max-rejected", type=float, default=1.0, metavar="RATE", help=_MAX_REJECTED)
    add("--max-drift", type=float, default=0.25, metavar="PSI", help=_MAX_DRIFT)
    add("--metrics-file", type=storage.normalise, metavar="PATH", help=_METRICS)
    add("--report", type=checked_folder, metavar="DIR", help="write a page about the output there")
    add("--retry", type=_reasons, default=frozenset(), metavar="REASON[,REASON]", help=_RETRY)
    add("--redo-older", action="store_true", help=_REDO_OLDER)
    add("--require-sandbox", action="store_true", help=_REQUIRE_SANDBOX)
    add("--sse-kms-key-id", metavar="ID", help=_KMS_KEY)
    add("--manifest", type=_manifest, metavar="URI", help=_MANIFEST)
    add("--dry-run", action="store_true", help="only say what would be done; writes nothing")
    add("--limit", type=int, metavar="ARCHIVES", help="read at most so many archives")
    values = vars(parser.parse_args(arguments))
    policy = values.pop("identifiers")
    protector = choose_protector(policy, values.pop("key_file"))
    inputs = tuple(storage.normalise(uri) for uri in values.pop("inputs"))
    output, model = (storage.normalise(values.pop(name)) for name in ("output", "model"))
    return ClassifyOptions(inputs, output, model, protector, policy is not None, **values)


def check_key(options: ClassifyOptions, held: Collection[str]) -> str | None:
    """Compare the key of a run with those that an output's pseudonyms were made by.

    Args:
        options: Of the run.
        held: Ids of the keys.

    Returns:
        What the user should know of; None where there is nothing.

    Raises:
        UsageError: A key was forgotten: new rows could not be joined with those that are there.
    """
    named, own = " and ".join(sorted(held)), options.protector.key_id
    if not held or own in held:
        return None
    if own is None and not options.is_policy_asked_for:
        raise UsageError(
            f"The output {options.output} has pseudonyms, by the key {named}, and this run has no "
            f"key: name it by --key-file or {KEY_VARIABLE}, or ask for --identifiers drop."
        )
    if own is None:
        return f"The output has pseudonyms, by the key {named}; rows of this run have none."
    return f"The output has pseudonyms by the key {named}; those of this run are by {own}."


def choose_protector(identifiers: str | None, key_file: str | None) -> Protector:
    """Pseudonymise by default where there is a key, else drops.

    Raises:
        UsageError: Pseudonyms are asked for without a key, or the key cannot be read.
    """
    path = key_file or os.environ.get(KEY_VARIABLE)
    key = Key.load(path) if path else None
    if identifiers is None:
        policy = IdentifierPolicy.DROP if key is None else IdentifierPolicy.PSEUDONYMISE
    else:
        policy = IdentifierPolicy(identifiers)
    if policy is IdentifierPolicy.PSEUDONYMISE and key is None:
        raise UsageError(
            "--identifiers pseudonymise needs a key; name its file by --key-file or "
            f"{KEY_VARIABLE}."
        )
    return Protector(policy, key)


def _actors(text: str) -> tuple[int, int]:
    least, _, most = text.partition(":")
    try:
        bounds = int(least), int(most or least)
    except ValueError:
        bounds = 0, 0
    if not 1 <= bounds[0] <= bounds[1]:
        raise UsageError(f"--actors is {text!r}; accepted is MIN or MIN:MAX with 1 <= MIN <= MAX.")
    return bounds


def _manifest(uri: str) -> ObjectList:
    return ObjectList(storage.normalise(uri))


def _reasons(text: str) -> frozenset[str]:
    return check_reasons(part.strip() for part in text.split(","))


def _check(is_right: bool, flag: str, value: object, accepted: str) -> None:
    if not is_right:
        raise UsageError(f"{flag} is {value}; accepted is {accepted}.")
