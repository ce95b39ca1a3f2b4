"""The doctor on what people say about alerts and where alerts go: suppressions, reviewers, deliveries."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pgwitness.cli.doctor.lines import Line, attempt
from pgwitness.core.errors import NotInOrder, PgwitnessError

if TYPE_CHECKING:
    from pgwitness.core.config import Config


def triage(config: Config, findings: list[Line]) -> None:
    """Read the suppressions, the reviewers' keys and the deliveries' settings; what has expired is not in order."""

    def suppressions() -> str:
        from pgwitness.cli.alerts_triage import file_rows

        path = config.triage.suppressions
        rows = file_rows(config, time.time_ns() // 1000)
        if late := [str(row["id"]) for row in rows if row["state"] == "expired"]:
            raise NotInOrder(f"{path}: {', '.join(late)} expired; remove or renew them")
        return f"{path}, {len(rows)} entries" if path.exists() else "no file, nothing is suppressed"

    def reviewers() -> str:
        from detectors.alerts.verdicts import public_key

        for name, reviewer in config.reviewers.items():
            try:
                public_key(reviewer.key)
            except PgwitnessError as error:
                raise NotInOrder(f"reviewers.{name}.key: {error}") from None
        return f"{len(config.reviewers)} listed"

    def deliveries() -> str:
        from sinks.deliveries import targets

        for name, settings in config.deliveries.items():
            targets.make(name, settings)
        return ", ".join(sorted(config.deliveries)) or "none configured"

    attempt("files", "suppressions", findings, suppressions)
    attempt("files", "reviewers", findings, reviewers)
    attempt("files", "deliveries", findings, deliveries)
