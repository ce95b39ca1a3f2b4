"""Write the golden alert anew, into its file and into the documentation: `python -m tests.detectors.write_golden`."""

from __future__ import annotations

import json
import re

from tests.detectors.test_alert import GOLDEN, REFERENCE, golden


def main() -> None:
    """Write both; what changed shows in the diff, and is a change of the contract."""
    text = json.dumps(golden(), indent=2, ensure_ascii=False)
    GOLDEN.write_text(text + "\n")
    page = REFERENCE.read_text()
    REFERENCE.write_text(re.sub(r"```json\n.*?\n```", lambda _: f"```json\n{text}\n```", page, flags=re.DOTALL))


if __name__ == "__main__":
    main()
