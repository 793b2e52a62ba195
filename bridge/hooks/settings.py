"""``server.cfg``: the settings with gunicorn's names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from bridge.config import Config

__all__ = ["SettingsView"]

#: gunicorn's defaults for settings that bridge's settings do not answer.
_USUAL: dict[str, Any] = {
    "backlog": 2048, "capture_output": False, "check_config": False, "chdir": "", "config": "./gunicorn.conf.py",
    "daemon": False, "disable_redirect_access_to_syslog": False, "dogstatsd_tags": "",
    "enable_stdio_inheritance": False, "graceful_timeout": 30, "group": None, "initgroups": False, "logconfig": None,
    "logconfig_dict": {},
    "logconfig_json": None, "logger_class": None, "max_requests": 0, "max_requests_jitter": 0, "paste": None,
    "proxy_protocol": "off", "pythonpath": None, "raw_env": [], "reload": False, "reload_engine": "auto",
    "reload_extra_files": [], "sendfile": None, "spew": False, "statsd_host": None, "statsd_prefix": "",
    "syslog": False, "syslog_addr": "udp://localhost:514", "syslog_facility": "user", "syslog_prefix": None,
    "tmp_upload_dir": None, "user": None, "wsgi_app": None, "worker_tmp_dir": None, "default_proc_name": "gunicorn",
    "enable_backlog_metric": False, "pidfile": None,
}  # fmt: skip


class _Value:
    """One setting, as ``cfg.settings[name]``."""

    def __init__(self, name: str, value: Any) -> None:
        self.name = name
        self.value = value

    def get(self) -> Any:
        return self.value


class SettingsView:
    """Settings by gunicorn's names; names of bridge's settings work too. Attributes can be set.

    Args:
        config: The settings of bridge.
        given: The settings of a gunicorn configuration file or command line.
    """

    def __init__(self, config: Config, given: Mapping[str, Any]) -> None:
        file = config.access_logfile if config.access_log else None
        timeout = config.timeout_worker
        values: dict[str, Any] = {
            **_USUAL,
            "workers": config.workers or 1,
            "threads": config.threads,
            "bind": [str(address) for address in config.addresses],
            "worker_class_str": {"wsgi": "gthread"}.get(config.interface, "asgi"),
            "worker_class": {"wsgi": "gthread"}.get(config.interface, "asgi"),
            "worker_connections": config.limit_connections or 1000,
            "timeout": 0 if timeout is None else int(timeout),
            "keepalive": int(config.timeout_keep_alive),
            "graceful_timeout": int(config.timeout_graceful_shutdown or 0),
            "loglevel": config.log_level,
            "accesslog": file,
            "access_log_format": config.access_logformat,
            "errorlog": config.error_logfile,
            "preload_app": config.preload,
            "proc_name": config.process_name or config.target,
            "certfile": config.ssl_certfile,
            "keyfile": config.ssl_keyfile,
            "ca_certs": config.ssl_ca_certs,
            "ciphers": config.ssl_ciphers,
            "pidfile": config.pid,
            "umask": config.umask or 0,
            "uid": os.geteuid(),
            "gid": os.getegid(),
            "is_ssl": config.ssl_certfile is not None,
            "ssl_options": {},
            "env": dict(config.env),
            "address": [tuple(address) for address in config.addresses],
            "forwarded_allow_ips": list(config.forwarded_allow_ips),
            "limit_request_line": config.limit_request_line,
            "limit_request_fields": config.limit_request_fields,
            "limit_request_field_size": config.limit_request_field_size,
            **{name: value for name, value in given.items() if value is not None},
        }
        vars(self).update({name: value for name, value in values.items() if name != "settings"})
        self._config = config

    @property
    def settings(self) -> dict[str, _Value]:
        """The settings as objects with a ``value``."""
        return {name: _Value(name, value) for name, value in vars(self).items() if not name.startswith("_")}

    def set(self, name: str, value: Any) -> None:
        """Set one of them; it changes nothing in the server."""
        setattr(self, name, value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_config":
            raise AttributeError(name)
        return getattr(self._config, name)
