"""Secrets of AWS: Secrets Manager's by their id, and what KMS decrypts."""

from collections.abc import Iterator
from contextlib import contextmanager

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from implant_model.errors import UsageError
from implant_model.storage.endpoint import check_endpoint
from implant_model.storage.store import read_bytes
from implant_model.storage.uri import normalise

_MAX_CIPHERTEXT = 6144  # what KMS takes


def read_secret(name: str) -> bytes:
    """Read a secret by its name or ARN.

    Raises:
        UsageError: It is not there, or may not be read; the endpoint is refused.
    """
    with _translated(f"The secret {name} of AWS Secrets Manager", "secretsmanager:GetSecretValue"):
        region = name.split(":")[3] if name.startswith("arn:") else None
        client = boto3.client("secretsmanager", region)
        check_endpoint(client.meta.endpoint_url)
        answer = client.get_secret_value(SecretId=name)
    text = answer.get("SecretString")
    return bytes(answer["SecretBinary"]) if text is None else str(text).encode()


def decrypt(uri: str) -> bytes:
    """Decrypt a small file or object by AWS KMS.

    Raises:
        UsageError: KMS does not decrypt it.
        StorageError: It cannot be read.
    """
    ciphertext = read_bytes(normalise(uri), max_bytes=_MAX_CIPHERTEXT)
    with _translated(f"The key {uri} and AWS KMS", "kms:Decrypt"):
        client = boto3.client("kms")
        check_endpoint(client.meta.endpoint_url)
        return bytes(client.decrypt(CiphertextBlob=ciphertext)["Plaintext"])


@contextmanager
def _translated(what: str, right: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "no code")
        raise UsageError(
            f"{what}: AWS answers {code}; check the name, the region and the right {right}."
        ) from None
    except BotoCoreError as error:
        raise UsageError(
            f"{what}: AWS does not answer ({type(error).__name__}); check AWS_REGION, credentials "
            "and network."
        ) from None
