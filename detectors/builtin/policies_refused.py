"""Changed policies that cannot be used: no policy can report that, for it is the policies that are wrong."""

from __future__ import annotations

from collections.abc import Sequence

from detectors.actions import Action
from detectors.alerts import reports
from detectors.alerts.reports import Report
from detectors.builtin.found import Found
from pgwitness.core.events import Kind


class PoliciesRefused:
    """Reports the event by which a worker says so. Keeps nothing."""

    kinds: frozenset[Kind] = frozenset({"control"})

    def look(self, action: Action, found: Found) -> Sequence[Report]:
        """Return one report for the event of `reports.POLICIES_REFUSED`."""
        if action.operation != reports.POLICIES_REFUSED:
            return ()
        return (reports.of_refused_policies(action, found.bundle_sha256),)

    def snapshot(self) -> object:
        """Return None."""
        return None

    def restore(self, state: object) -> None:
        """There is no state to take."""
