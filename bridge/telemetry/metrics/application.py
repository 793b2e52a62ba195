"""The application's own metrics, which it keeps with prometheus_client: beside the server's, from all processes.

With workers that is prometheus_client's multiprocess mode: each process writes files into a directory, which
``PROMETHEUS_MULTIPROC_DIR`` names, and the process that is asked reads them all. The master makes the directory before
the application is imported. When a worker has ended, the master adds its files up into one, so that their number does
not grow, and removes its live gauges. Nothing reads them meanwhile, since the master is the one that answers.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from typing import Any

from bridge.core.log import gen_log
from bridge.errors import ConfigError
from bridge.telemetry.metrics.exposition import OPENMETRICS
from bridge.telemetry.processes import runs

__all__ = ["ApplicationMetrics", "Directory"]

_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_PREFIX = "bridge-metrics-"
# Kinds of files whose values are summed over all processes.
_SUMMED = ("counter", "histogram", "summary")


class ApplicationMetrics:
    """Shows what the application counts.

    Raises:
        ConfigError: prometheus_client is not installed.
    """

    def __init__(self) -> None:
        from importlib.util import find_spec

        if find_spec("prometheus_client") is None:
            raise ConfigError(
                "--metrics-app: prometheus_client is not installed: `pip install prometheus-client`, or install bridge"
                " with the extra bridge[prometheus]"
            )
        self._told = False

    def expose(self, media_type: str, taken: Collection[str]) -> bytes:
        """Return the metrics as text without an end; nothing if they cannot be read, which is told once.

        Args:
            media_type: PROMETHEUS or OPENMETRICS.
            taken: Names of metrics that the server has itself.
        """
        try:
            found = self._text(media_type, taken)
        except Exception as exc:  # files that somebody else has written, and collectors of the application's
            if not self._told:
                gen_log.warning("--metrics-app: the application's metrics cannot be read: %r", exc)
            self._told = True
            return b""
        self._told = False
        return found

    @staticmethod
    def _text(media_type: str, taken: Collection[str]) -> bytes:
        from prometheus_client import REGISTRY, CollectorRegistry
        from prometheus_client.multiprocess import MultiProcessCollector

        if media_type == OPENMETRICS:
            from prometheus_client.openmetrics.exposition import generate_latest
        else:
            from prometheus_client.exposition import generate_latest
        registry = REGISTRY
        directory = os.environ.get(_VARIABLE)
        if directory is not None:
            registry = CollectorRegistry()
            MultiProcessCollector(registry, directory)
        text: bytes = generate_latest(_Without(registry, taken))
        return text.removesuffix(b"# EOF\n")


class _Without:
    """A registry without some of its metrics."""

    def __init__(self, registry: Any, names: Collection[str]) -> None:
        self._registry = registry
        self._names = names

    def collect(self) -> Iterator[Any]:
        for metric in self._registry.collect():
            if metric.name not in self._names:
                yield metric


class Directory:
    """The files of the application's metrics, for a master.

    Args:
        takes_over: Another master and its workers still write into the same directory.

    Attributes:
        path: The directory. This process's variables name it.

    Raises:
        ConfigError: The directory that the variable names cannot be used.
    """

    def __init__(self, *, takes_over: bool) -> None:
        given = os.environ.get(_VARIABLE, "")
        self._ended = f"ended-{os.getpid()}"
        self._ours = not given or os.path.basename(given).startswith(_PREFIX)
        if given:
            try:
                self.path = os.environ[_VARIABLE] = os.path.abspath(given)
                os.makedirs(self.path, exist_ok=True)
                if not takes_over:
                    self._sweep()
            except OSError as exc:
                raise ConfigError(f"{_VARIABLE}: {given}: {exc.strerror}") from exc
        else:
            self.path = os.environ[_VARIABLE] = tempfile.mkdtemp(prefix=_PREFIX)

    def _sweep(self) -> None:
        """Remove what processes have left that are no more: their counters would go on in this run."""
        for name in os.listdir(self.path):
            owner = name.removesuffix(".db").rpartition("_")[2].removeprefix("ended-")
            if name.endswith(".db") and owner.isdecimal() and not runs(int(owner)):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(self.path, name))

    def process_ended(self, pid: int) -> None:
        """Look after the files of a process that has ended."""
        try:
            for kind in _SUMMED:
                file = os.path.join(self.path, f"{kind}_{pid}.db")
                if os.path.exists(file):
                    _add_up(file, os.path.join(self.path, f"{kind}_{self._ended}.db"))
                    os.unlink(file)
            if any(name.endswith(f"_{pid}.db") for name in os.listdir(self.path)):
                from prometheus_client.multiprocess import mark_process_dead

                mark_process_dead(pid, self.path)
        except Exception as exc:
            gen_log.warning("--metrics-app: the files of process %d stay as they are: %r", pid, exc)

    def close(self, *, remove: bool) -> None:
        """Remove the directory if this server has made it, unless another master goes on with it."""
        if remove and self._ours:
            shutil.rmtree(self.path, ignore_errors=True)
            if os.environ.get(_VARIABLE) == self.path:
                del os.environ[_VARIABLE]


def _add_up(file: str, sums: str) -> None:
    """Add the values of one file to those of another."""
    from prometheus_client.mmap_dict import MmapedDict

    total = MmapedDict(sums)
    try:
        for key, value, timestamp, _ in MmapedDict.read_all_values_from_file(file):
            total.write_value(key, total.read_value(key)[0] + value, timestamp)
    finally:
        total.close()
