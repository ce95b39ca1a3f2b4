"""Keys: who may read one, and commands that sign instead."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pgwitness.core.config import Config, Lake, Seal
from pgwitness.core.errors import ConfigurationError, NotInOrder, Retry, Stop
from sinks.seal import keys
from sinks.seal.opening import alone, checking_key, open_sealer
from sinks.seal.tlog.note import PrivateKey
from tests.sinks.seal.material import KEY, OTHER_KEY

SIGNS = """
import sys, base64
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
signature = Ed25519PrivateKey.from_private_bytes(bytes.fromhex({seed!r})).sign(sys.stdin.buffer.read())
sys.stdout.buffer.write({write})
"""


def signing(key: PrivateKey = KEY, write: str = "signature") -> Config:
    """Configure a command that signs."""
    script = SIGNS.format(seed=key.seed.hex(), write=write)
    return Config(seal=Seal(sign_command=[sys.executable, "-c", script], public_key=KEY.public().text()))


@pytest.mark.parametrize("write", ["signature", "base64.b64encode(signature) + b'\\n'"])
def test_a_command_signs(write: str) -> None:
    """Raw or in base64; what it signs is what the key would."""
    assert keys.signer(signing(write=write)).sign(b"text\n") == KEY.sign(b"text\n")


def test_a_command_that_signs_otherwise_is_refused() -> None:
    """Another key, or no signature, would make a checkpoint that nobody can check."""
    for config in (signing(key=OTHER_KEY), signing(write="b'x'")):
        with pytest.raises(Stop, match="did not print an Ed25519 signature"):
            keys.signer(config).sign(b"text\n")


def test_a_command_that_fails_is_tried_again() -> None:
    """A key service that is away stops nothing for good."""
    public = KEY.public().text()
    failing = Seal(sign_command=[sys.executable, "-c", "import sys; sys.exit('no token')"], public_key=public)
    with pytest.raises(Retry, match=r"ended with 1 \(no token\)"):
        keys.signer(Config(seal=failing)).sign(b"text\n")
    with pytest.raises(Retry, match="did not sign"):
        keys.signer(Config(seal=Seal(sign_command=["/nowhere"], public_key=public))).sign(b"text\n")
    with pytest.raises(ConfigurationError, match=r"needs seal\.public_key"):
        keys.signer(Config(seal=Seal(sign_command=["/nowhere"])))


def test_a_key_is_its_users_alone(tmp_path: Path) -> None:
    """One that others may read is none, and one that is there is not written over."""
    path = tmp_path / "seal.key"
    public = keys.make_key(path, "example.com/lake")
    assert keys.read_key(path).public() == public
    with pytest.raises(ConfigurationError, match="is there already"):
        keys.make_key(path, "example.com/lake")
    path.chmod(0o640)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        keys.read_key(path)
    path.chmod(0o600)
    path.write_text(path.read_text()[:-5] + "AAA=\n")
    with pytest.raises(ConfigurationError, match="Ed25519 key") as raised:
        keys.read_key(path)
    assert path.read_text().strip() not in str(raised.value)
    with pytest.raises(ConfigurationError, match="cannot be the name"):
        keys.make_key(tmp_path / "other", "a name")


def test_keys_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    """The public key of the configuration is that of the private one."""
    path = tmp_path / "seal.key"
    public = keys.make_key(path, "example.com/lake")
    with pytest.raises(ConfigurationError, match="is not the private key of"):
        keys.signer(Config(seal=Seal(key=path, public_key=OTHER_KEY.public().text())))
    assert keys.signer(Config(lake=Lake(signing_key_file=path))).public == public
    with pytest.raises(ConfigurationError, match="the sealer has no key"):
        keys.signer(Config())
    with pytest.raises(ConfigurationError, match="lies in the lake"):
        open_sealer(Config(lake=Lake(path=tmp_path), seal=Seal(key=path, state_path=tmp_path / "memory")))


def test_a_public_key_is_given_or_configured(tmp_path: Path) -> None:
    """As a word, in a file, or as the private key's."""
    public = KEY.public()
    (tmp_path / "key.pub").write_text(public.text() + "\n")
    assert checking_key(Config(), public.text()) == public
    assert checking_key(Config(), str(tmp_path / "key.pub")) == public
    assert checking_key(Config(seal=Seal(public_key=public.text()))) == public
    with pytest.raises(ConfigurationError, match="no public key to check with"):
        checking_key(Config())
    with pytest.raises(ConfigurationError, match="nowhere: No such file"):
        checking_key(Config(), "nowhere")
    with pytest.raises(ConfigurationError, match="damaged"):
        checking_key(Config(), public.text().replace("example.com", "example.org"))


def test_one_sealer_at_a_time(tmp_path: Path) -> None:
    """A second one with the same memory is told so."""
    config = Config(seal=Seal(state_path=tmp_path / "memory"))
    with alone(config), pytest.raises(NotInOrder, match="another sealer"), alone(config):
        pytest.fail("there are two")
    with alone(config):
        pass
