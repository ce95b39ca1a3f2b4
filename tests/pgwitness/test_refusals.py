"""Why a broker does not answer, in words for the operator."""

from __future__ import annotations

import pytest

from pgwitness.core.runtime.refusals import PROTOCOL, UNREACHED, Refusals


class Said:
    """A complaint of a client."""

    def __init__(self, name: str, text: str) -> None:
        self._name, self._text = name, text

    def name(self) -> str:
        """Give its name."""
        return self._name

    def str(self) -> str:
        """Give its text."""
        return self._text


PASSWORD = Said(
    "_AUTHENTICATION",
    "sasl_ssl://10.0.0.1:9093/1: SASL authentication error: Authentication failed (after 30ms in state AUTH_REQ)",
)
CERTIFICATE = Said(
    "_SSL",
    "sasl_ssl://10.0.0.1:9093/1: SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: broker "
    "certificate could not be verified (install ca-certificates package) (after 5ms in state SSL_HANDSHAKE)",
)
DOWN = Said("_ALL_BROKERS_DOWN", "1/1 brokers are down")
CLOSED = Said("_TRANSPORT", "sasl_ssl://10.0.0.1:9092/1: Disconnected: SSL connection closed by peer (after 2ms)")
PLAIN = Said("_TRANSPORT", "sasl_ssl://10.0.0.1:9092/1: Disconnected: connecting to a PLAINTEXT broker listener?")


@pytest.mark.parametrize(
    ("complaints", "final", "says"),
    [
        ([PASSWORD, DOWN], True, "refused (SASL authentication error: Authentication failed): correct sasl.mechanism"),
        (
            [DOWN, CERTIFICATE],
            True,
            "certificate verify failed: broker certificate could not be verified): correct ssl",
        ),
        ([PLAIN, DOWN], False, PROTOCOL),
        ([CLOSED], False, PROTOCOL),
        ([DOWN], False, f"does not answer (timed out): {UNREACHED}"),
        ([], False, f"does not answer (timed out): {UNREACHED}"),
    ],
)
def test_a_refusal_is_told_from_absence(complaints: list[Said], final: bool, says: str) -> None:
    """What the broker refused is named with the settings to correct, whatever else was complained of."""
    refusals = Refusals()
    for complaint in complaints:
        refusals(complaint)
    assert refusals.final == final
    said = refusals.explain("kafka:9093", "timed out")
    assert said.startswith("the broker at kafka:9093 ")
    assert says in said
    assert "in state" not in said
