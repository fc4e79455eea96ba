"""Which host may get radiographs and credentials: by TLS, and no machine's metadata service.

The variables here are set by options of a job; `jobs.entry.cluster` gives them to every node.
"""

import ipaddress
import os
import socket
from typing import Final
from urllib.parse import urlsplit

from implant_model.errors import UsageError

ALLOW_HTTP: Final = "IMPLANT_ALLOW_HTTP"
"""Variable, `1` where --allow-http was given."""
KMS_KEY: Final = "AWS_SSE_KMS_KEY_ID"
"""Variable with the KMS key that encrypts what is written; set by --sse-kms-key-id."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_METADATA: Final = frozenset(
    ipaddress.ip_address(address)
    for address in (
        "100.100.100.200",  # Alibaba Cloud
        "168.63.129.16",  # Azure's host
        "192.0.0.192",  # Oracle Cloud
        "fd00:ec2::254",  # AWS
        "fd00:ec2::23",  # AWS EKS Pod Identity
        "fd20:ce::254",  # Google Cloud
    )
)
"""Besides all link-local addresses (169.254.0.0/16, fe80::/10), where most of them are."""
_METADATA_NAMES: Final = frozenset(
    {"metadata", "metadata.google.internal", "metadata.goog", "instance-data"}
)
_TRANSLATED: Final = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::/96"))


def check_endpoint(url: str) -> None:
    """Refuse an endpoint that may not get what this software sends.

    A name is judged by what it resolves to now; one that does not resolve is left to the request.

    Args:
        url: As `https://host[:port]`.

    Raises:
        UsageError: It is a metadata service, or plain HTTP to another machine without
            --allow-http.
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".").lower()
    addresses = _resolve(host)
    names = {host, host.removesuffix(".ec2.internal")}
    if names & _METADATA_NAMES or any(map(_is_metadata, addresses)):
        raise UsageError(
            f"The endpoint {host} is a machine's metadata service, which holds its credentials; "
            "name an object store in AWS_ENDPOINT_URL."
        )
    if parts.scheme == "https" or os.environ.get(ALLOW_HTTP) == "1":
        return
    if not addresses or not all(address.is_loopback for address in addresses):
        raise UsageError(
            f"The endpoint {parts.scheme}://{host} is not encrypted: radiographs would cross the "
            "network in clear; use https://, or give --allow-http on a network that is private."
        )


def _resolve(host: str) -> set[Address]:
    """Return a host's addresses, also of one written as `2852039166` or `0xA9.254.43518`."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return set()
    return {_plain(str(entry[4][0])) for entry in found}


def _plain(text: str) -> Address:
    """Return the IPv4 address within an IPv6 one, where it stands for one."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped or address.sixtofour:
        return address.ipv4_mapped or address.sixtofour or address
    is_translated = any(address in network for network in _TRANSLATED) and int(address) > 1
    return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if is_translated else address


def _is_metadata(address: Address) -> bool:
    return address.is_link_local or address in _METADATA
