"""YAML as people write it into our files, read strictly: a key that stands twice is an error.

YAML's readers let the last one win in silence. A forgotten `---` between two policies would make one of them vanish,
and a second `rules:` in `identities.yaml` would take everybody's name away.
"""

from __future__ import annotations

from typing import Any

import yaml

_Safe: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The safe loader in C where PyYAML was built with it, ten times as fast."""


class _Strict(_Safe):  # type: ignore[misc]
    """The safe loader, but that a mapping may have a key once only."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode):
                continue
            if (key.tag, key.value) in seen:
                problem = f"the key {key.value!r} stands here a second time"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep=deep)


def load(text: str) -> Any:
    """Read one document; None when there is nothing. Raises `yaml.YAMLError`, `ValueError` or `RecursionError`."""
    return yaml.load(text, Loader=_Strict)  # noqa: S506 - a safe loader


def load_all(text: str) -> list[Any]:
    """Read every document of a text. Raises as `load` does."""
    return list(yaml.load_all(text, Loader=_Strict))
