"""Which URLs and hosts may be given a secret: those reached over TLS, or on this host."""

from ipaddress import ip_address
from urllib.parse import urlsplit


def secure_url(url: str) -> bool:
    """Return True if a request to this URL is encrypted or stays on this host, as in a sandbox."""
    try:
        parts = urlsplit(url)
        sound = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return sound and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or "")))


def is_loopback(host: str) -> bool:
    """Return True if an address or host name reaches only this host."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
