"""Objects in S3 and what speaks its API; boto3 lives here, in `s3_reader` and in `secrets`.

Endpoint, region, credentials and profile come from the standard AWS settings (`AWS_ENDPOINT_URL`,
`AWS_REGION` or `AWS_DEFAULT_REGION`, `AWS_ACCESS_KEY_ID`, `AWS_PROFILE`, ...). Where none of them
holds credentials, boto3 asks the metadata service of AWS once, for a second or two;
`AWS_EC2_METADATA_DISABLED=true` spares that where there is none.

Clients are made when first needed, one for each process and state of the `AWS_*` variables (threads
share it; a forked child makes its own). Each request is tried 8 times ("standard" retries with
jitter: lost connections, 500, 502, 503, 504, throttling), about 35 s in all before it fails.
"""

import base64
import contextlib
import functools
import hashlib
import os
import random
import threading
import time
from collections.abc import Iterator
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final, Literal, TypedDict
from urllib.parse import urlsplit

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.exceptions import ConnectionError as NoConnectionError

from implant_model.errors import (
    AccessDeniedError,
    ChangedError,
    NotFoundError,
    StorageError,
    UsageError,
)
from implant_model.storage.endpoint import ALLOW_HTTP, KMS_KEY, check_endpoint
from implant_model.storage.uri import ObjectInfo, s3_parts

if TYPE_CHECKING:
    import boto3
    from mypy_boto3_s3 import S3Client

ATTEMPTS = 8
_SETUP_ATTEMPTS = 3  # a wrong endpoint is reported within about 3 s
_CONNECT_TIMEOUT_S = 10
_READ_TIMEOUT_S = 60
_CONNECTIONS = 32


class _Encryption(TypedDict, total=False):
    ServerSideEncryption: Literal["aws:kms"]
    SSEKMSKeyId: str


# A conflict with another writer, or a body damaged on its way: the same request may be sent again.
_SEND_AGAIN_CODES = {"ConditionalRequestConflict", "OperationAborted", "BadDigest"}


def client(attempts: int = ATTEMPTS) -> "S3Client":
    """Return this process's client for the `AWS_*` variables as they are now.

    Raises:
        AccessDeniedError: There are no credentials.
        UsageError: The settings make no client (unknown profile, malformed endpoint, ...).
    """
    return _connection(attempts)[0]


_LOCKS: Final[dict[int, threading.Lock]] = {}
"""By process: a lock that is held as its process forks stays locked in the child."""


def _connection(attempts: int) -> tuple["S3Client", "boto3.Session"]:
    """Return client and session, one for all threads that ask at once: to make one takes 0.3 s."""
    with _LOCKS.setdefault(os.getpid(), threading.Lock()):
        return _connect(os.getpid(), attempts, _settings())


def _settings() -> tuple[tuple[str, str], ...]:
    return tuple(sorted(i for i in os.environ.items() if i[0].startswith(("AWS_", ALLOW_HTTP))))


@functools.lru_cache(maxsize=4)
def _connect(
    pid: int, attempts: int, settings: tuple[tuple[str, str], ...]
) -> tuple["S3Client", "boto3.Session"]:
    # The arguments are the cache's key: a client must not outlive a fork or a change of settings.
    import boto3  # here: it takes 0.4 s, in each process of a job, and a disk does without
    from botocore.config import Config

    config = Config(
        retries={"mode": "standard", "total_max_attempts": attempts},
        connect_timeout=_CONNECT_TIMEOUT_S,
        read_timeout=_READ_TIMEOUT_S,
        max_pool_connections=_CONNECTIONS,
        # boto3's default sends checksums in trailers, which older S3-compatible stores refuse.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    try:
        session = boto3.Session(region_name=dict(settings).get("AWS_REGION") or None)
        if session.get_credentials() is None:
            raise AccessDeniedError(f"There are no AWS credentials; {CREDENTIALS}.")
        made = session.client("s3", config=config)
    except (PartialCredentialsError, CredentialRetrievalError) as error:
        raise AccessDeniedError(
            f"The AWS credentials cannot be had ({type(error).__name__}); {CREDENTIALS}."
        ) from error
    except (BotoCoreError, ValueError) as error:
        raise UsageError(
            f"The AWS settings are not usable ({type(error).__name__}); check AWS_ENDPOINT_URL "
            "(as https://host:port), AWS_REGION, AWS_PROFILE and the AWS configuration file."
        ) from error
    check_endpoint(made.meta.endpoint_url)
    return made, session


def stat(uri: str) -> ObjectInfo:
    """Return size and version of an object. A bare bucket is no object: NotFoundError."""
    bucket, key = s3_parts(uri)
    if not key:
        raise NotFoundError(f"{uri!r} is a bucket; an object in it is expected.")
    with translated("read", uri):
        reply = client().head_object(Bucket=bucket, Key=key)
    return ObjectInfo(f"s3://{bucket}/{key}", reply["ContentLength"], reply["ETag"].strip('"'))


def nearest(uri: str) -> str:
    """Return the URI of the prefix that a mistyped name may mean, or else of the one above it.

    Raises:
        NotFoundError: There is no such bucket.
    """
    bucket, key = s3_parts(uri)
    parts = key.rstrip("/").split("/")
    for depth in range(len(parts) - 1, -1, -1):
        above = "".join(f"{part}/" for part in parts[:depth])
        with translated("list", uri):
            page = client(_SETUP_ATTEMPTS).list_objects_v2(
                Bucket=bucket, Prefix=above, Delimiter="/"
            )
        names = [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]
        if names or page.get("Contents"):
            found = get_close_matches(f"{above}{parts[depth]}/", names, 1)
            return f"s3://{bucket}/{found[0] if found else above}"
    return f"s3://{bucket}/"


def put_if_absent(uri: str, data: bytes) -> bool:
    """One conditional PUT (`If-None-Match: *`), with its MD5 so that no damaged body is kept.

    A reply that got lost after its effect is tried again and answered 412: False although this call
    made the object. Who cares compares the content.
    """
    bucket, key = s3_parts(uri)
    md5 = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
    for attempt in range(ATTEMPTS):
        pause(attempt)
        try:
            client().put_object(
                Bucket=bucket,
                Key=key,
                Body=data,
                ContentMD5=md5,
                IfNoneMatch="*",
                **_encryption(),
            )
        except ClientError as error:
            if status_of(error) == 412:
                return False
            if error.response["Error"].get("Code") not in _SEND_AGAIN_CODES:
                raise storage_error("write", uri, error) from error
        except BotoCoreError as error:
            raise storage_error("write", uri, error) from error
        else:
            return True
    raise StorageError(f"Cannot write {uri!r}: {ATTEMPTS} attempts met a conflict; try again.")


def overwrite(uri: str, data: bytes) -> None:
    """One unconditional PUT."""
    bucket, key = s3_parts(uri)
    with translated("write", uri):
        client().put_object(Bucket=bucket, Key=key, Body=data, **_encryption())


def _encryption() -> "_Encryption":
    """Return how the store is to encrypt an object: under its own key, or that of `KMS_KEY`."""
    key = os.environ.get(KMS_KEY)
    return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key} if key else {}


def check_bucket(uri: str) -> None:
    """List what is below, with few attempts: a wrong endpoint, key or name is reported at once.

    Not HEAD of the bucket, for which a right to list one prefix is not enough; and with the
    prefix's slash, since a right to list `PREFIX/*` does not hold for `PREFIX`.
    """
    bucket, key = s3_parts(uri)
    below = f"{key.rstrip('/')}/" if key else ""
    with translated("reach", uri):
        client(_SETUP_ATTEMPTS).list_objects_v2(Bucket=bucket, Prefix=below, MaxKeys=1)


def delta_options(uri: str) -> dict[str, str]:
    """`storage_options` for deltalake: what this process's client uses, credentials included.

    Temporary credentials are those of this moment: ask anew for each commit. Never log the answer.
    Commits are conditional PUTs, so that two writers cannot both make the same one.
    """
    s3_parts(uri)
    made, session = _connection(ATTEMPTS)
    with translated("read", uri):
        found = session.get_credentials()
        if found is None:
            raise NoCredentialsError
        credentials = found.get_frozen_credentials()
    endpoint = made.meta.endpoint_url
    options = {
        "AWS_ACCESS_KEY_ID": credentials.access_key,
        "AWS_SECRET_ACCESS_KEY": credentials.secret_key,
        "AWS_SESSION_TOKEN": credentials.token,
        "AWS_REGION": session.region_name or "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true" if urlsplit(endpoint).scheme == "http" else None,
        "AWS_CONDITIONAL_PUT": "etag",
        "AWS_SSE_KMS_KEY_ID": os.environ.get(KMS_KEY),
        "AWS_SERVER_SIDE_ENCRYPTION": "aws:kms" if os.environ.get(KMS_KEY) else None,
    }
    return {name: value for name, value in options.items() if value}


def pause(attempt: int) -> None:
    """Wait before attempt 1, 2, ... (not before 0): up to 0.2, 0.4, ... 5 s, at random."""
    if attempt:
        time.sleep(random.uniform(0, min(5.0, 0.1 * 2**attempt)))


CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or a role"
_DENIED_CODES = {
    *("AccessDenied", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"),
    *("InvalidToken", "TokenRefreshRequired", "RequestTimeTooSkewed", "AllAccessDisabled"),
}


@contextlib.contextmanager
def translated(action: str, uri: str) -> Iterator[None]:
    """Turn boto3's exceptions into the project's errors."""
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise storage_error(action, uri, error) from error


def storage_error(action: str, uri: str, error: ClientError | BotoCoreError) -> StorageError:
    """One sentence with the URI and the store's code; never its text, which may name accounts."""
    what = f"Cannot {action} {uri!r}"
    if isinstance(error, ClientError):
        return _answered(what, error)
    if isinstance(error, NoCredentialsError | PartialCredentialsError | CredentialRetrievalError):
        return AccessDeniedError(f"{what}: there are no AWS credentials; {CREDENTIALS}.")
    kind = type(error).__name__
    if isinstance(error, NoConnectionError | HTTPClientError):
        return StorageError(f"{what}: no connection to the store ({kind}); check AWS_ENDPOINT_URL.")
    return StorageError(f"{what}: the store's answer was not understood ({kind}).")


def _answered(what: str, error: ClientError) -> StorageError:
    code, status = error.response["Error"].get("Code", ""), status_of(error)
    answer = f"{what}: the store answered {status} {code}".removesuffix(f" {status}")
    if code == "InvalidObjectState":
        return AccessDeniedError(f"{answer}: it is archived (Glacier); restore it first.")
    # A HEAD's refusal has no body: 400 is a key of the customer's (SSE-C) or an expired token.
    encrypted = code.startswith("KMS.") or (status == 400 and code in ("400", "InvalidRequest"))
    if encrypted:
        return AccessDeniedError(f"{answer}; check its encryption key and the AWS credentials.")
    if code in _DENIED_CODES or status in (401, 403):
        return AccessDeniedError(f"{answer}; check the AWS credentials and their rights.")
    if status == 404:
        return NotFoundError(f"{answer}; check the bucket and the name.")
    if status in (412, 416):
        return ChangedError(f"{answer}: it is no longer the version that was planned; run again.")
    return StorageError(f"{answer}.")


def status_of(error: ClientError) -> int:
    """Return the HTTP status of an error that the store answered."""
    return error.response["ResponseMetadata"]["HTTPStatusCode"]
