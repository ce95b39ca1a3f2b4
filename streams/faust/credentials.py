"""librdkafka's settings (as `[kafka]` has them) in the words of Faust, for the one client that is not librdkafka."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path

import faust

from pgwitness.core.errors import ConfigurationError

UNKNOWN = ("ssl.certificate.pem", "ssl.key.pem", "ssl.keystore.location", "ssl.crl.location")
"""What librdkafka would take and the worker's client cannot: it would connect in another way than meant."""


def tls(settings: Mapping[str, str]) -> ssl.SSLContext:
    """Make the TLS context of librdkafka's `ssl.*` settings."""
    if unknown := [name for name in UNKNOWN if name in settings]:
        raise ConfigurationError(
            f"kafka.{unknown[0]}: the worker cannot use it; name PEM files in ssl.ca.location, "
            "ssl.certificate.location and ssl.key.location"
        )
    try:
        authority = settings.get("ssl.ca.location") if settings.get("ssl.ca.location") != "probe" else None
        folder = authority is not None and Path(authority).is_dir()
        context = ssl.create_default_context(
            cafile=None if folder else authority,
            capath=authority if folder else None,
            cadata=settings.get("ssl.ca.pem"),
        )
        if certificate := settings.get("ssl.certificate.location"):
            context.load_cert_chain(certificate, settings.get("ssl.key.location"), settings.get("ssl.key.password"))
    except OSError as error:
        raise ConfigurationError(f"kafka.ssl: {error}; check the files that kafka.ssl.* name") from error
    if settings.get("ssl.endpoint.identification.algorithm") == "none":
        context.check_hostname = False
    if settings.get("enable.ssl.certificate.verification") == "false":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def credentials(settings: Mapping[str, str]) -> faust.SASLCredentials | faust.SSLCredentials | None:
    """Return Faust's credentials for these settings; None is plaintext. Raise `ConfigurationError`."""
    protocol = settings.get("security.protocol", "plaintext").lower()
    if protocol == "plaintext":
        return None
    if protocol == "ssl":
        return faust.SSLCredentials(context=tls(settings))
    if protocol not in ("sasl_plaintext", "sasl_ssl"):
        raise ConfigurationError(
            f"kafka.security.protocol: {protocol!r} is none of plaintext, ssl, sasl_plaintext, sasl_ssl"
        )
    mechanism = (settings.get("sasl.mechanisms") or settings.get("sasl.mechanism") or "PLAIN").upper()
    if mechanism not in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"):
        raise ConfigurationError(
            f"kafka.sasl.mechanism: the worker knows PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512, not {mechanism}"
        )
    return faust.SASLCredentials(
        username=settings.get("sasl.username"),
        password=settings.get("sasl.password"),
        mechanism=mechanism,
        ssl_context=tls(settings) if protocol == "sasl_ssl" else None,
    )
