"""Has checkpoints stamped by a time-stamping authority (RFC 3161), and checks such stamps."""

from __future__ import annotations

from datetime import UTC
from pathlib import Path

from cryptography import x509
from rfc3161_client import (
    HashAlgorithm,
    TimestampRequestBuilder,
    TimeStampResponse,
    VerificationError,
    VerifierBuilder,
    decode_timestamp_response,
)

from pgwitness.core.config import Anchor, Config
from pgwitness.core.errors import ConfigurationError, Retry
from pgwitness.core.secretfile import address
from sinks.seal.anchors import http
from sinks.seal.anchors.given import Given

MICROSECONDS = 1_000_000


def make_timestamp(where: str, settings: Anchor, config: Config) -> Timestamp:
    """Make the anchor."""
    if settings.certificates is None:
        raise ConfigurationError(f"{where}.certificates: a PEM file with the authority's certificates")
    return Timestamp(
        address(where, settings.url, settings.url_file), certificates(settings.certificates), float(settings.timeout)
    )


def certificates(path: Path) -> list[x509.Certificate]:
    """Read certificates in PEM. Raise `ConfigurationError` when there are none."""
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} has no certificates in PEM ({error})") from error


class Timestamp:
    """Asks an authority to stamp the SHA-256 of a note; a stamp that does not fit is as good as none."""

    suffix = "tsr"

    def __init__(self, url: str, trusted: list[x509.Certificate], timeout_s: float) -> None:
        self._url = url
        self._trusted = trusted
        self._timeout_s = timeout_s

    def put(self, given: Given) -> bytes:
        """Have it stamped; gives the authority's answer (DER)."""
        request = (
            TimestampRequestBuilder()
            .data(given.note)
            .hash_algorithm(HashAlgorithm.SHA256)
            .cert_request(cert_request=True)
        ).build()
        headers = {"content-type": "application/timestamp-query"}
        answer = http.post(self._url, request.as_bytes(), headers, self._timeout_s)
        try:
            found = decode_timestamp_response(answer)
            _check(found, given.note, self._trusted, request.nonce)
        except (ValueError, VerificationError) as error:
            raise Retry(f"the authority's answer is no time stamp of what it was asked for: {error}") from error
        return answer

    def newest(self) -> bytes | None:
        """An authority keeps nothing."""
        return None


def stamped_at_us(answer: bytes, note: bytes, trusted: list[x509.Certificate]) -> int:
    """Give when a note was stamped, in microseconds. Raise `ValueError` when it was not, or by somebody else."""
    try:
        found = decode_timestamp_response(answer)
        _check(found, note, trusted, None)
    except VerificationError as error:
        raise ValueError(str(error)) from error
    return int(found.tst_info.gen_time.replace(tzinfo=found.tst_info.gen_time.tzinfo or UTC).timestamp() * MICROSECONDS)


def _check(found: TimeStampResponse, note: bytes, trusted: list[x509.Certificate], nonce: int | None) -> None:
    roots = [one for one in trusted if one.issuer == one.subject] or trusted
    builder = VerifierBuilder(roots=roots, intermediates=[one for one in trusted if one not in roots], nonce=nonce)
    builder.build().verify_message(found, note)
