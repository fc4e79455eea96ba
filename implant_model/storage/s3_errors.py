"""What boto3 raises, as the project's errors: whole sentences that name the URI, no credentials."""

import contextlib
from collections.abc import Iterator

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
)

CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or a role"
_DENIED_CODES = {
    *("AccessDenied", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"),
    *("InvalidToken", "TokenRefreshRequired", "RequestTimeTooSkewed", "AllAccessDisabled"),
}


@contextlib.contextmanager
def translated(action: str, uri: str) -> Iterator[None]:
    """Turns boto3's exceptions into the project's errors."""
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
    """The HTTP status of an error that the store answered."""
    return error.response["ResponseMetadata"]["HTTPStatusCode"]
