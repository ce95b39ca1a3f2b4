"""Why a broker does not answer: what a client of Kafka complained of while it tried, in words for the operator.

A client that is refused (a wrong password, a certificate nobody trusts) tries on for ever, and the call that waits for
it ends with a time-out that says nothing. What it was told in the meantime goes to its `error_cb`: a `Refusals` is one.
"""

from __future__ import annotations

import re
from typing import Protocol

REMEDIES = {
    "_AUTHENTICATION": "correct sasl.mechanism, sasl.username and sasl.password (or sasl.password_file) in [kafka]",
    "_SSL": (
        "correct ssl.ca.location in [kafka], which names the authority of the broker's certificate, and the name that "
        "kafka.bootstrap calls it by"
    ),
}
PROTOCOL = 'is "security.protocol" in [kafka] the one of this listener?'
_OF_PROTOCOL = ("PLAINTEXT broker", "SSL", "security.protocol")
"""What a broken connection is said to be by who spoke TLS to a listener without, or the other way round."""
UNREACHED = "start it, or correct kafka.bootstrap"


class Complaint(Protocol):
    """What a client hands to its `error_cb`."""

    def name(self) -> str:
        """Return the error's name, such as `_AUTHENTICATION`."""

    def str(self) -> str:
        """Say what happened."""


class Refusals:
    """Remembers the last complaint of each sort; to be given to a client as its `error_cb`."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def __call__(self, error: Complaint) -> None:
        """Take a complaint."""
        self._said[error.name()] = error.str()

    @property
    def final(self) -> bool:
        """Whether the broker was reached and refused: trying again as configured is of no use."""
        return any(name in self._said for name in REMEDIES)

    def explain(self, bootstrap: str, otherwise: str) -> str:
        """Say what is wrong with the broker at `bootstrap` and what to do; `otherwise` is what the call itself said."""
        for name, remedy in REMEDIES.items():
            if name in self._said:
                return f"the broker at {bootstrap} was reached and refused ({_plain(self._said[name])}): {remedy}"
        why = _plain(self._said["_TRANSPORT"]) if "_TRANSPORT" in self._said else otherwise
        hint = f" {PROTOCOL}" if any(word in why for word in _OF_PROTOCOL) else ""
        return f"the broker at {bootstrap} does not answer ({why}): {UNREACHED}{';' + hint if hint else ''}"


def _plain(text: str) -> str:
    """Leave out where in its code the client was, and for how long."""
    text = re.sub(r"^\w+://\S+: ", "", text)
    text = re.sub(r"error:[0-9A-F]+:[^:]*:[^:]*:", "", text)
    return re.sub(r" \((?:after|install) [^)]*\)", "", text)
