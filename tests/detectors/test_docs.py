"""The reference of policies says what the code knows: every name, every packaged policy, an example that loads."""

from __future__ import annotations

import re
from pathlib import Path

from detectors.policy.files import parse
from detectors.policy.policies import Bundle
from detectors.vocabulary import SCHEMA

PAGE_OF = Path(__file__).parent.parent.parent / "docs"
PAGE = (PAGE_OF / "reference" / "policies.md").read_text()


def test_every_name_of_the_language_is_documented() -> None:
    """Each field has its row, with its type and meaning as the code has them, and no row is left over."""
    rows = re.findall(r"^\| `([\w.]+)` \| ([\w ]+) \| (.+) \|$", PAGE, re.MULTILINE)
    documented = {name: (kind, meaning) for name, kind, meaning in rows if " | " not in meaning}
    assert documented == {name: (field.type, field.meaning) for name, field in SCHEMA.items()}


def test_every_packaged_policy_is_documented() -> None:
    """Each packaged policy has its row with title, severity, techniques and kinds as they are."""
    for policy in Bundle.packaged().policies.values():
        document = policy.document
        facts = [document.title, document.severity, ", ".join(document.attack), ", ".join(document.kinds)]
        assert f"| `{document.id}` | {' | '.join(facts)} |" in PAGE


def test_the_documented_example_loads_and_passes() -> None:
    """Who copies the example has a policy that works."""
    example = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert example is not None
    assert Bundle(parse(example[1], "example")).run_tests() == []


def test_the_examples_of_the_how_to_load_and_pass() -> None:
    """So does every policy on the page that says how to write one."""
    page = (PAGE_OF / "how-to" / "write-a-policy.md").read_text()
    examples = [text for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if text.startswith("id: ")]
    assert len(examples) >= 3
    bundle = Bundle([policy for text in examples for policy in parse(text, "how-to")])
    assert bundle.run_tests() == []
    assert "drop_without_copy" in bundle.policies
