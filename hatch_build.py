"""Builds the compiled part of bridge, ``bridge._speedups``, where there is a compiler.

Hatchling calls it for wheels and editable installs. ``python hatch_build.py`` builds the module beside its source, for
a work tree whose C has changed.

The variable ``BRIDGE_BUILD`` decides:

* unset: build it if that works, otherwise say so in one line and go on without;
* ``pure``: do not build it, which gives a ``py3-none-any`` wheel;
* ``compiled``: fail if it cannot be built, as for wheels that are published.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent
SOURCE = "bridge/_speedups.c"
MODES = ("", "pure", "compiled")

# No debug information, and no path of the machine that builds: the same source gives the same bytes.
_UNIX_FLAGS = [
    "-std=c11",
    "-O2",
    "-g0",
    "-Wall",
    "-Wextra",
    "-Wconversion",
    "-Wno-unused-parameter",
    "-fvisibility=hidden",
    "-fstack-protector-strong",
    "-U_FORTIFY_SOURCE",
    "-D_FORTIFY_SOURCE=2",
]


class CustomBuildHook(BuildHookInterface[Any]):
    """Adds the compiled module to a wheel, or builds it in the work tree of an editable install."""

    _directory = ""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the module.

        Raises:
            ValueError: BRIDGE_BUILD has another value than those above.
            Exception: BRIDGE_BUILD is ``compiled``, and the module cannot be built.
        """
        if version == "editable":
            built = build(ROOT / "bridge")
            if built is None:
                remove_built()  # one of an earlier source would be taken otherwise
        else:
            self._directory = tempfile.mkdtemp(prefix="bridge-build-")
            built = build(Path(self._directory))
            if built is not None:
                build_data["force_include"][str(built)] = f"bridge/{built.name}"
        if built is not None:
            build_data["pure_python"] = False
            build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was only needed for the wheel."""
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)


def build(target: Path) -> Path | None:
    """Compile the module into the directory *target*.

    Returns:
        The module's file; None if there is to be none, or if it cannot be built.
    """
    mode = os.environ.get("BRIDGE_BUILD", "")
    if mode not in MODES:
        raise ValueError(f"BRIDGE_BUILD={mode}: expected one of {', '.join(filter(None, MODES))}, or nothing")
    if mode == "pure":
        return None
    if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        reason = "this interpreter takes the Python functions"
    else:
        try:
            return _compile(target)
        except Exception as exc:  # whatever the compiler's failure is: the Python functions do the same
            if mode == "compiled":
                raise
            reason = " ".join(str(exc).split())
    if mode == "compiled":
        raise RuntimeError(f"BRIDGE_BUILD=compiled: {reason}")
    print(f"bridge: built without its compiled part: {reason}", file=sys.stderr)
    return None


def remove_built() -> None:
    """Remove this interpreter's module from the work tree."""
    (ROOT / "bridge" / f"_speedups{sysconfig.get_config_var('EXT_SUFFIX')}").unlink(missing_ok=True)


def _compile(target: Path) -> Path:
    from setuptools import Distribution, Extension

    unix = os.name == "posix"
    flags = [*_UNIX_FLAGS, f"-ffile-prefix-map={ROOT}=."] if unix else []
    extension = Extension("_speedups", [SOURCE], extra_compile_args=flags)
    with tempfile.TemporaryDirectory(prefix="bridge-objects-") as objects:
        before = Path.cwd()
        os.chdir(ROOT)  # so that the object file's name, which a linker may keep, is the same everywhere
        try:
            command = Distribution({"name": "bridge", "ext_modules": [extension]}).get_command_obj("build_ext")
            command.build_lib, command.build_temp, command.force = objects, objects, True
            command.ensure_finalized()
            command.run()
        finally:
            os.chdir(before)
        name = command.get_ext_filename("_speedups")
        # Replaced at once: a process that has loaded the old file keeps it.
        new = target / f".{name}.{os.getpid()}"
        shutil.copyfile(Path(objects) / name, new)
        new.chmod(0o755)
        return new.replace(target / name)


if __name__ == "__main__":
    found = build(ROOT / "bridge")
    if found is None:
        remove_built()
