"""What the doctor says of files."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pgwitness.cli.doctor import installation
from pgwitness.cli.doctor.lines import Line
from pgwitness.core.config import Config, File

PEM = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@pytest.mark.parametrize(
    ("text", "state", "words"),
    [
        (PEM, "ok", "1 for EdDSA"),
        ('{"keys": []}', "error", "not a JWKS"),
        ("nothing", "error", "no usable key"),
        (None, "error", "cannot be read"),
    ],
)
def test_the_keys_that_tokens_are_believed_by_are_read(
    tmp_path: Path, text: str | None, state: str, words: str
) -> None:
    """Without a usable key `collect wal` does not start, so the doctor says it before."""
    path = tmp_path / "claims.pem"
    if text is not None:
        path.write_text(text)
    lines: list[Line] = []
    installation.files(Config(identities=File(file=tmp_path / "i.yaml", claims_keys=path)), lines)
    (found,) = [line for line in lines if line["what"] == "claims keys"]
    assert found["state"] == state
    assert words in str(found["found"])


def test_without_such_keys_nothing_is_said(tmp_path: Path) -> None:
    """Tokens are no duty."""
    lines: list[Line] = []
    installation.files(Config(identities=File(file=tmp_path / "i.yaml")), lines)
    assert "claims keys" not in [line["what"] for line in lines]
