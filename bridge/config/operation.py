"""The settings for metrics, probes and commands, a part of the table in `bridge.config.settings`."""

from __future__ import annotations

from bridge.config.kinds import ADDRESSES, NETWORKS, PAGE_PATH, SWITCH, Address, TCPAddress, off_or
from bridge.config.process import ProcessConfig
from bridge.config.table import setting
from bridge.errors import ConfigError

__all__ = ["OPERATION", "OperationConfig"]

OPERATION = "Metrics, probes and commands"


class OperationConfig(ProcessConfig):
    """How the server is watched and steered."""

    admin_bind: tuple[Address, ...] = setting(
        OPERATION,
        ADDRESSES,
        (),
        "answer /metrics, /livez, /readyz, /startupz and /status here, to everyone who reaches it; may be repeated",
    )
    metrics_path: str | None = setting(
        OPERATION,
        off_or(PAGE_PATH),
        None,
        "answer this path of the application's port with the metrics, such as /metrics",
    )
    metrics_allow_from: tuple[str, ...] = setting(
        OPERATION,
        NETWORKS,
        ("127.0.0.1", "::1", "unix"),
        "the peers that may read --metrics-path; for others it does not exist",
    )
    metrics_body_sizes: bool = setting(
        OPERATION, SWITCH, False, "measure the sizes of the content of requests and responses, too"
    )

    @property
    def own_paths(self) -> tuple[str, ...]:
        """The paths of the application's port that the server answers itself."""
        return tuple(path for path in (self.metrics_path,) if path is not None)

    def _check_operation(self, addresses: tuple[Address, ...]) -> None:
        """Raise ConfigError for settings that contradict each other.

        Args:
            addresses: Where the application is served.
        """
        for address in self.admin_bind:
            if address in addresses and not (isinstance(address, TCPAddress) and address.port == 0):
                raise ConfigError(f"--admin-bind: {address} is an address of the application; choose another one")

    @property
    def measures(self) -> bool:
        """Something asks for metrics, so they are counted."""
        return bool(self.admin_bind) or self.metrics_path is not None
