"""What several test files share: ways to cut bytes, a transport and a loop without time or sockets."""

import importlib.util
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
"""The folder of the project."""


def module_of(path: Path) -> ModuleType:
    """Return a new module made of a file that cannot be imported by name."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
