"""The settings for metrics, probes and commands, a part of the table in `bridge.config.settings`."""

from __future__ import annotations

import os

from bridge.config.kinds import (
    ADDRESSES,
    FILE,
    FUNCTION,
    NETWORKS,
    PAGE_PATH,
    SWITCH,
    TEXT,
    Address,
    Kind,
    TCPAddress,
    off_or,
    seconds,
    whole,
    words,
)
from bridge.config.process import ProcessConfig
from bridge.config.table import setting
from bridge.errors import ConfigError

__all__ = ["OPERATION", "OperationConfig"]

OPERATION = "Metrics, probes and commands"


def _ready_workers(text: str) -> int | None:
    word = text.strip().lower()
    return {"any": 1, "all": None}[word] if word in {"any", "all"} else whole(1, 1000).parse(word)


READY_WORKERS = Kind(_ready_workers, "any, all, or a whole number from 1 to 1000", "N")


def _statsd(text: str) -> str:
    if text.startswith("unix:") and len(text) > 5:
        return text
    host, colon, port = text.rpartition(":")
    if not colon or not host or not text.isprintable():
        raise ValueError(text)
    whole(1, 65535).parse(port)
    return text


STATSD = Kind(_statsd, "HOST:PORT or unix:PATH", "SERVER")


class OperationConfig(ProcessConfig):
    """How the server is watched and steered."""

    admin_bind: tuple[Address, ...] = setting(
        OPERATION,
        ADDRESSES,
        (),
        "the address on which bridge answers /metrics, /livez, /readyz, /startupz and /status, to everyone who"
        " reaches it; may be repeated",
    )
    metrics_path: str | None = setting(
        OPERATION,
        off_or(PAGE_PATH),
        None,
        "a path on the application's port, such as /metrics, on which bridge answers with the metrics",
    )
    metrics_allow_from: tuple[str, ...] = setting(
        OPERATION,
        NETWORKS,
        ("127.0.0.1", "::1", "unix"),
        "the peers that get metrics from --metrics-path; for other peers the path belongs to the application",
    )
    metrics_body_sizes: bool = setting(
        OPERATION, SWITCH, False, "add metrics for the size of the content of requests and responses"
    )

    health_path: str | None = setting(
        OPERATION,
        off_or(PAGE_PATH),
        None,
        "a path on the application's port, such as /healthz, which bridge answers itself: 200, or 503 when the"
        " server is about to stop",
    )
    drain_delay: float = setting(
        OPERATION,
        seconds(zero=True),
        0.0,
        "how long the server still serves after SIGTERM before it stops; meanwhile /readyz and --health-path"
        " answer 503, and each response closes its connection",
    )
    ready_workers: int | None = setting(
        OPERATION,
        READY_WORKERS,
        1,
        "how many workers must serve before /readyz answers 200: any, all, or a number",
        shown="any",
    )
    readiness_check: str | None = setting(
        OPERATION,
        FUNCTION,
        None,
        "a function, module:name, that each worker calls every 5 s; a worker for which it fails is not ready",
    )

    control_socket: str | None = setting(
        OPERATION,
        off_or(FILE),
        "auto",
        "the Unix socket for the commands bridge status, top, reload, scale, drain, stop, dump and others; only"
        " the user of the server and root may use it; auto, only with workers, is bridge.ctl in RUNTIME_DIRECTORY,"
        " or bridge-PID.ctl in XDG_RUNTIME_DIR",
    )

    statsd: str | None = setting(
        OPERATION,
        off_or(STATSD),
        None,
        "the statsd server that gets counts, durations and the number of workers every second, under gunicorn's names",
        aliases=("statsd-host",),
    )
    metrics_app: bool = setting(
        OPERATION,
        SWITCH,
        False,
        "add the metrics that the application makes with prometheus_client to /metrics, summed over the workers",
    )
    statsd_prefix: str = setting(OPERATION, TEXT, "gunicorn", "the beginning of all names that are sent to statsd")
    dogstatsd_tags: tuple[str, ...] = setting(
        OPERATION, words("TAGS", "a list of NAME:VALUE"), (), "tags that are added for DogStatsD, such as env:prod"
    )
    otlp: bool = setting(
        OPERATION,
        SWITCH,
        False,
        "send metrics over OTLP/HTTP to OTEL_EXPORTER_OTLP_ENDPOINT; OTEL_METRIC_EXPORT_INTERVAL,"
        " OTEL_SERVICE_NAME and others configure it",
    )

    otel: bool = setting(
        OPERATION,
        SWITCH,
        False,
        "instrument each process that serves with OpenTelemetry, before it imports the application, as"
        " opentelemetry-instrument does for one process",
    )

    @property
    def pushes(self) -> bool:
        """Metrics are sent somewhere."""
        return self.statsd is not None or self.otlp

    @property
    def control_path(self) -> str | None:
        """The path of the control socket of a server with workers that is this process; None for none."""
        if self.control_socket != "auto":
            return self.control_socket
        directory = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
        if directory:
            return os.path.join(directory, "bridge.ctl")
        directory = os.environ.get("XDG_RUNTIME_DIR", "")
        return os.path.join(directory, f"bridge-{os.getpid()}.ctl") if os.path.isdir(directory) else None

    @property
    def own_paths(self) -> tuple[str, ...]:
        """The paths of the application's port that the server answers itself."""
        return tuple(path for path in (self.metrics_path, self.health_path) if path is not None)

    def _check_regulation(self) -> None:
        if self.workers is None:
            for name in ("workers_max_rss", "memory_target"):
                if getattr(self, name) is not None:
                    raise ConfigError(f"--{name.replace('_', '-')}: needs --workers, which can be replaced")

    def _check_application_metrics(self) -> None:
        if not self.metrics_app:
            return
        if not self.admin_bind and self.metrics_path is None:
            raise ConfigError("--metrics-app: needs --admin-bind or --metrics-path, where metrics are answered")
        if self.user is not None and self.workers is not None and not self.preload:
            raise ConfigError("--metrics-app: not with --user, unless --preload: the master would read files as root")

    def _check_operation(self, addresses: tuple[Address, ...], mounts: tuple[str, ...]) -> None:
        """Raise ConfigError for settings that contradict each other.

        Args:
            addresses: Where the application is served.
            mounts: The paths at which applications are mounted.
        """
        self._check_regulation()
        for name, path in (("--health-path", self.health_path), ("--metrics-path", self.metrics_path)):
            if path is not None and path.rstrip("/") in mounts:
                raise ConfigError(f"{name}: an application is mounted at {path}; choose another path")
        if self.health_path is not None and self.health_path == self.metrics_path:
            raise ConfigError(f"--health-path: {self.health_path} is --metrics-path, too; choose another path")
        if isinstance(self.ready_workers, int) and self.ready_workers > max(self.workers or 1, 1):
            raise ConfigError(f"--ready-workers: {self.ready_workers} is more than --workers, {self.workers or 1}")
        self._check_application_metrics()
        for address in self.admin_bind:
            if address in addresses and not (isinstance(address, TCPAddress) and address.port == 0):
                raise ConfigError(f"--admin-bind: {address} is an address of the application; choose another one")

    @property
    def measures(self) -> bool:
        """Something asks for metrics, so they are counted."""
        scales = getattr(self.workers, "most", self.workers) != self.workers
        asked = bool(self.admin_bind) or self.metrics_path is not None or self.control_socket not in {None, "auto"}
        return asked or scales or self.pushes

    @property
    def regulates(self) -> bool:
        """The number of workers, or their memory, is regulated."""
        scales = getattr(self.workers, "most", self.workers) != self.workers
        return scales or self.workers_max_rss is not None or self.memory_target is not None
