"""A login upstream by a password that the gateway has itself."""

from __future__ import annotations

import pytest

from collectors.gateway.auth.scram import ITERATIONS_MAX, ClientExchange, Password, ScramError, ServerExchange, Verifier


def test_a_password_proves_itself_to_whoever_has_its_verifier() -> None:
    """And finds that the other end has it; another password proves nothing."""
    verifier = Verifier.of("secret", b"s" * 16)
    assert Verifier.parse(verifier.text()) == verifier
    for password, right in (("secret", True), ("Secret", False)):
        server = ServerExchange(verifier, "app", b"", "server", None)
        client = ClientExchange(Password(password), "client")
        last = client.final(server.first("SCRAM-SHA-256", client.first()))
        if not right:
            with pytest.raises(ScramError) as raised:
                server.final(last)
            assert raised.value.denied
            continue
        client.ended(server.final(last)[0])


@pytest.mark.parametrize("iterations", ["0", str(ITERATIONS_MAX + 1), "9" * 30, "-1", "x"])
def test_a_server_cannot_keep_the_gateway_calculating(iterations: str) -> None:
    """It may ask for so many iterations and no more."""
    client = ClientExchange(Password("secret"), "client")
    client.first()
    with pytest.raises(ScramError, match="iterations"):
        client.final(f"r=clientmore,s=c2FsdA==,i={iterations}".encode())


@pytest.mark.parametrize("password", ["", "pässword", "a\nb"])
def test_a_password_that_would_have_to_be_prepared_is_refused(password: str) -> None:
    """Clients normalise such ones before they hash them (RFC 4013), and the gateway does not."""
    with pytest.raises(ValueError, match="printable ASCII"):
        Password(password)
