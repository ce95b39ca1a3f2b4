"""A certificate authority of a test's own, a server with TLS and clients with certificates."""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pgwitness.demo.servers import FAST_AND_FORGETFUL, Postgres

HBA = "local all all trust\nhostnossl all all 127.0.0.1/32 trust\nhostssl all {role} 127.0.0.1/32 cert\n"
HBA += "hostssl all all 127.0.0.1/32 trust\n"


class Authority:
    """Issues certificates into a folder; a fresh one is signed by itself."""

    def __init__(self, folder: Path, name: str = "our ca") -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.path = folder / "ca.crt"
        self.path.write_bytes(_pem(self._signed(self._name, self._key.public_key(), authority=True)))

    def issue(self, name: str, address: str | None = None) -> tuple[Path, Path, int]:
        """Make a key and a certificate for a common name: the certificate's file, the key's, the serial number.

        With an IP `address` it is a server's, for that address.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._signed(subject, key.public_key(), address)
        paths = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        paths[0].write_bytes(_pem(certificate))
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        paths[1].chmod(0o600)
        return *paths, certificate.serial_number

    def _signed(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        address: str | None = None,
        *,
        authority: bool = False,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        names = [x509.IPAddress(ipaddress.ip_address(address))] if address else [x509.DNSName("localhost")]
        ours = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(ours, critical=False)
            .add_extension(_usage(authority), critical=True)
            .sign(self._key, hashes.SHA256())
        )


@contextmanager
def tls_server(data: Path, bin: Path, authority: Authority, role: str) -> Iterator[Postgres]:  # noqa: A002 - as there
    """Run a server that asks clients for certificates; `role` must come with one of its own, others need none."""
    server = Postgres(data, bin=bin, settings=FAST_AND_FORGETFUL)
    server.start()
    try:
        owner = server.place.stat()
        certificate, key, _ = authority.issue("localhost")
        for source, name in ((authority.path, "ca.crt"), (certificate, "server.crt"), (key, "server.key")):
            target = server.place / name
            target.write_bytes(source.read_bytes())
            target.chmod(0o600)
            os.chown(target, owner.st_uid, owner.st_gid)
        (server.place / "pg_hba.conf").write_text(HBA.format(role=role))
        server.settings |= {"ssl": "on", "ssl_ca_file": "ca.crt"}
        server.restart()
        yield server
    finally:
        server.stop("immediate")


def _usage(authority: bool) -> x509.KeyUsage:
    words = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only")
    others = dict.fromkeys((*words, "decipher_only"), False)
    return x509.KeyUsage(digital_signature=True, key_cert_sign=authority, crl_sign=authority, **others)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
