"""One module of a package, without all that the package's own `__init__` would load beside it.

river's packages load SciPy's statistics and SQLAlchemy for models that are not used here, cel's a terminal: more than
two seconds of processor time and 80 MiB, for each worker and each command that judges.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec


@contextmanager
def without_init(*packages: str) -> Iterator[None]:
    """Let modules of these packages be imported in the block without running the packages' `__init__`.

    Whoever imports such a package later gets it whole, with the very modules that are loaded already. Not for packages
    that the imported modules themselves take something from: they would find them empty.
    """
    bare = [name for name in packages if name not in sys.modules]
    for name in bare:
        spec = find_spec(name)
        if spec is None:
            raise ModuleNotFoundError(f"there is no package {name}", name=name)
        sys.modules[name] = module_from_spec(spec)
    try:
        yield
    finally:
        for name in bare:
            del sys.modules[name]
