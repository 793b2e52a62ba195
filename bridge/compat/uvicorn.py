"""A stand-in for uvicorn: ``run``, ``Config`` and ``Server``."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

from bridge.apps.loading import TargetError
from bridge.compat import importable, installed, put_in_place
from bridge.compat import install as install_all
from bridge.config import Config as Settings
from bridge.dialects.command import config_of, refuse
from bridge.dialects.table import Translation
from bridge.dialects.uvicorn import DIALECT, keywords, settle_address, settle_defaults
from bridge.errors import BindError, ConfigError, LifespanFailed
from bridge.files import Place, set_socket
from bridge.serving.embedding import Server as Embedded
from bridge.serving.process import read_variables
from bridge.telemetry.logs import AS_IT_IS, stand_for

__all__ = ["LOGGING_CONFIG", "Config", "Server", "install", "run"]

#: The status of a process whose application did not start.
STARTUP_FAILURE = 3
# Seconds that requests have after Ctrl-C.
_INTERRUPTED = 0.5

_FORMATS = {"default": "%(levelname)s:     %(message)s", "access": "%(levelname)s:     %(message)s"}
LOGGING_CONFIG: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {name: {"format": form} for name, form in _FORMATS.items()},
    "handlers": {
        "default": {"formatter": "default", "class": "logging.StreamHandler", "stream": "ext://sys.stderr"},
        "access": {"formatter": "access", "class": "logging.StreamHandler", "stream": "ext://sys.stdout"},
    },
    "loggers": {
        "uvicorn": {"handlers": ["default"], "level": "INFO", "propagate": False},
        "uvicorn.error": {"level": "INFO"},
        "uvicorn.access": {"handlers": ["access"], "level": "INFO", "propagate": False},
    },
}

_DEFAULTS: dict[str, Any] = {
    "host": "127.0.0.1", "port": 8000, "uds": None, "fd": None, "loop": "auto", "http": "auto", "http2": False,
    "ws": "auto", "ws_max_size": 16777216, "ws_max_queue": 32, "ws_ping_interval": 20.0, "ws_ping_timeout": 20.0,
    "ws_per_message_deflate": True, "lifespan": "auto", "env_file": None, "log_config": LOGGING_CONFIG,
    "log_level": None, "access_log": True, "use_colors": None, "interface": "auto", "reload": False,
    "reload_dirs": None, "reload_delay": 0.25, "reload_includes": None, "reload_excludes": None, "workers": None,
    "proxy_headers": True, "server_header": True, "date_header": True, "forwarded_allow_ips": None, "root_path": "",
    "limit_concurrency": None, "limit_max_requests": None, "limit_max_requests_jitter": 0, "backlog": 2048,
    "timeout_keep_alive": 5, "timeout_notify": 30, "timeout_graceful_shutdown": None, "timeout_worker_healthcheck": 5,
    "callback_notify": None, "ssl_keyfile": None, "ssl_certfile": None, "ssl_keyfile_password": None,
    "ssl_version": 17, "ssl_cert_reqs": 0, "ssl_ca_certs": None, "ssl_ciphers": None, "ssl_context_factory": None,
    "headers": None, "factory": False, "h11_max_incomplete_event_size": None, "reset_contextvars": False,
}  # fmt: skip
_ORDER = ("app", *_DEFAULTS)
_warned: set[str] = set()


class Config:
    """The settings of a `Server`, with uvicorn's names; they are attributes, and may be changed before it starts.

    Args:
        app: The application, or its name as ``module:attribute``.
        *more: Further settings in uvicorn's order.
        **settings: Settings by name. One that bridge does not know is named in a warning.
    """

    def __init__(self, app: Any, *more: Any, **settings: Any) -> None:
        given = {**dict(zip(_ORDER[1:], more, strict=False)), **settings}
        for name in given.keys() - _DEFAULTS.keys() - {"app_dir"}:
            _warn(f"uvicorn.Config: {name}: bridge does not know it")
        self.app = app
        self._given = set(given)
        for name, value in {**_DEFAULTS, **given}.items():
            setattr(self, name, value)
        self.loaded = False
        self.loaded_app: Any = None
        self.encoded_headers: list[tuple[bytes, bytes]] = []
        concurrency = os.environ.get("WEB_CONCURRENCY", "")
        workers = given.get("workers")
        if workers is None and concurrency.isdecimal():
            workers = int(concurrency)
            self._given.add("workers")
        self.workers: int = workers or 1

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"uvicorn.Config has no attribute {name!r}")

    @property
    def is_ssl(self) -> bool:
        """TLS is on."""
        return bool(self.ssl_certfile or self.ssl_context_factory)

    @property
    def use_subprocess(self) -> bool:
        """The server runs in child processes."""
        return bool(self.reload or self.workers > 1)

    @property
    def should_reload(self) -> bool:
        """The server restarts when source files change."""
        return bool(isinstance(self.app, str) and self.reload)

    def configure_logging(self) -> None:
        """Do nothing: the server does it at its start."""

    def setup_event_loop(self) -> None:
        """Do nothing: the server does it at its start."""

    def get_loop_factory(self) -> Callable[[], asyncio.AbstractEventLoop]:
        """Return what makes the event loop."""
        from bridge.serving.loops import loop_factory

        return loop_factory(self.loop if self.loop in {"asyncio", "uvloop"} else "auto")

    def load(self) -> None:
        """Import the application.

        Raises:
            SystemExit: It cannot be imported.
        """
        self.loaded_app = self.app
        if isinstance(self.app, str):
            from bridge.apps.loading import load_target

            try:
                self.loaded_app = load_target(self.app, factory=self.factory, app_dir=getattr(self, "app_dir", None))
            except TargetError as exc:
                logging.getLogger("uvicorn.error").error("Error loading ASGI app. %s", exc)
                raise SystemExit(1) from None
        elif self.factory:
            self.loaded_app = self.app()
        self.loaded = True

    def bind_socket(self) -> socket.socket:
        """Return a socket that is bound to the address.

        Raises:
            SystemExit: The address cannot be used.
        """
        try:
            if self.uds:
                sock = socket.socket(socket.AF_UNIX)
                with Place.of(self.uds) as place:
                    if place.status() is not None:
                        place.unlink()
                    sock.bind(self.uds)
                    set_socket(place, 0o666)  # as uvicorn does, but no other file
            elif self.fd is not None:
                sock = socket.socket(fileno=os.dup(self.fd))
            else:
                sock = socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind((self.host, self.port))
        except OSError as exc:
            logging.getLogger("uvicorn.error").error(exc)
            raise SystemExit(1) from None
        sock.set_inheritable(True)
        return sock

    def settings(self, sockets: list[socket.socket] | None = None) -> tuple[Settings, Any]:
        """Return bridge's settings and the application, which is None if the settings name it.

        Raises:
            ConfigError: A setting cannot be used.
        """
        translation = Translation()
        given = {name: value for name, value in vars(self).items() if name in _DEFAULTS}
        changed = {name: value for name, value in given.items() if name in self._given or value != _DEFAULTS[name]}
        changed.pop("env_file", None)
        if self.env_file is not None:
            read_variables(os.fspath(self.env_file))
        for name, value in changed.items():
            if isinstance(value, Path):
                changed[name] = str(value)
        if not self.use_subprocess:
            for name in ("workers", "reload", "reload_dirs", "reload_includes", "reload_excludes", "reload_delay"):
                changed.pop(name, None)
        for remark in keywords(changed, translation):
            _warn(f"uvicorn.Config: {remark}")
        if self.log_config is None and not self.use_subprocess:  # child processes do not have this one's logging
            _leave_logging(translation)
        refuse(DIALECT, translation)
        translation.dialect.setdefault("host", self.host)
        translation.dialect.setdefault("port", self.port)
        settle_address(translation)
        settle_defaults(translation)
        app = self.loaded_app if self.loaded else self.app
        if isinstance(app, str):
            translation.set("target", app)
            app = None
            if getattr(self, "app_dir", None):
                translation.set("app_dir", self.app_dir)
        elif self.factory and not self.loaded:
            app = app()
        if self.loaded:
            translation.layer.pop("factory", None)
        for sock in sockets or ():
            sock.listen(self.backlog)
        if sockets:
            translation.set("bind", ",".join(f"fd://{os.dup(sock.fileno())}" for sock in sockets))
        return config_of(translation, os.environ), app


def _leave_logging(t: Translation) -> None:
    """Keep the program's configuration of Python's logging, except for the level."""
    t.objects["log_config"] = AS_IT_IS
    level = t.layer.get("log_level")
    if level is not None:
        for name in ("bridge", "uvicorn.error", "uvicorn.access"):
            logging.getLogger(name).setLevel(level.text.upper())


def _warn(text: str) -> None:
    if text not in _warned:
        _warned.add(text)
        logging.getLogger("bridge").warning("%s", text)


class _Flag:
    """An attribute of a Server that has an effect when it is set, from any thread."""

    def __init__(self, name: str, act: Callable[[Server], None]) -> None:
        self._name = f"_{name}"
        self._act = act

    def __get__(self, server: Server | None, owner: type) -> Any:
        return False if server is None else vars(server).get(self._name, False)

    def __set__(self, server: Server, value: bool) -> None:
        vars(server)[self._name] = bool(value)
        if value:
            self._act(server)


class Server:
    """Serves an application, with the methods and attributes of uvicorn's class.

    Args:
        config: The settings.

    Attributes:
        started: It accepts connections.
        should_exit: Set it to end the server gracefully.
        force_exit: Set it to end the server at once.
        servers: One object with the listening ``sockets``, once started.
        server_state: Counts of requests, connections and tasks.
    """

    should_exit = _Flag("should_exit", lambda server: server._stop())
    force_exit = _Flag("force_exit", lambda server: server._force())

    def __init__(self, config: Config) -> None:
        self.config = config
        self.server_state = SimpleNamespace(total_requests=0, connections=set(), tasks=set(), default_headers=[])
        self.started = False
        self.servers: list[Any] = []
        self.last_notified = 0.0
        self.lifespan: Any = SimpleNamespace(should_exit=False, state={})
        self._captured_signals: list[int] = []
        self._inner: Embedded | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve on a new event loop until :attr:`should_exit` or a signal."""
        with _awaited_at_exit(self), asyncio.Runner(loop_factory=self.config.get_loop_factory()) as runner:
            runner.run(self.serve(sockets=sockets))

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until :attr:`should_exit`. In the main thread signals are handled; afterwards they are raised again."""
        with self.capture_signals():
            await self._serve(sockets)

    async def _serve(self, sockets: list[socket.socket] | None = None) -> None:
        if not self.config.loaded and not isinstance(self.config.app, str):
            self.config.load()
        await self.startup(sockets=sockets)
        if self.should_exit and not self.started:
            return
        await self.main_loop()
        await self.shutdown(sockets=sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application and accept connections.

        Raises:
            SystemExit: The address cannot be used, or the application cannot be imported.
        """
        log = logging.getLogger("uvicorn.error")
        stand_for("uvicorn")
        self._loop = asyncio.get_running_loop()
        try:
            settings, app = self.config.settings(sockets)
            self._inner = _Inner(settings, app)
            await self._inner.startup()
        except BindError as exc:
            log.error(exc)
            raise SystemExit(1) from None
        except LifespanFailed as exc:
            log.error("%s", exc)
            log.error("Application startup failed. Exiting.")
            self._inner = None
            self.should_exit = True
            return
        except ConfigError as exc:
            log.error("%s%s", getattr(exc, "app_traceback", ""), exc)
            raise SystemExit(1) from None
        self.servers = [SimpleNamespace(sockets=self._inner.sockets, close=lambda: None, is_serving=lambda: True)]
        self.started = True
        log.info("Uvicorn running on %s (Press CTRL+C to quit; served by bridge)", self._inner.url)
        if self.should_exit:
            self._inner.should_exit = True

    async def main_loop(self) -> None:
        """Wait for the end."""
        assert self._inner is not None
        await self._inner.stopped()

    async def on_tick(self, counter: int) -> bool:
        """Tell whether the server ends."""
        return bool(self.should_exit)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let requests in progress finish, and stop the application."""
        if self._inner is not None:
            await self._inner.shutdown()
        for sock in sockets or ():
            sock.close()
        self.servers = []

    def _stop(self) -> None:
        inner = self._inner
        if inner is None or self._loop is None or self._loop.is_closed():
            return
        if signal.SIGINT in self._captured_signals:
            self._loop.call_soon_threadsafe(inner.stop, _INTERRUPTED)
        else:
            inner.should_exit = True

    def _force(self) -> None:
        if self._inner is not None and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._inner.force)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End gracefully; at once, if a second SIGINT comes."""
        again = self.should_exit
        self._captured_signals.append(sig)
        if again and sig == signal.SIGINT:
            self.force_exit = True
        else:
            self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle SIGINT and SIGTERM by :meth:`handle_exit` meanwhile, in the main thread; then raise them again."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        if type(self).install_signal_handlers is not Server.install_signal_handlers:
            self.install_signal_handlers()  # a derived class wants other handlers, or none
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        for captured in reversed(self._captured_signals):
            signal.raise_signal(captured)

    def install_signal_handlers(self) -> None:
        """Do nothing: :meth:`capture_signals` does it. Derived classes override this to have no handlers."""


@contextlib.contextmanager
def _awaited_at_exit(server: Server) -> Iterator[None]:
    """Keep the interpreter alive until a server in a non-daemon thread has ended.

    The interpreter waits for such threads itself. But when Ctrl-C interrupts ``Thread.join()``, Python 3.11 and 3.12
    regard the thread as ended. uvloop would then call into an interpreter that is gone: 57 of 11,453 ends crashed.
    """
    thread = threading.current_thread()
    if thread is threading.main_thread() or thread.daemon:
        yield
        return
    ended = threading.Event()

    def wait() -> None:
        if server.should_exit:
            ended.wait()

    atexit.register(wait)
    try:
        yield
    finally:
        ended.set()
        atexit.unregister(wait)


class _Inner(Embedded):
    """bridge's server inside the program."""

    def __init__(self, settings: Settings, app: Any) -> None:
        super().__init__(settings)
        self._app = app


def run(app: Any, **settings: Any) -> None:
    """Serve *app* until a signal asks for a stop.

    Args:
        app: The application, or its name as ``module:attribute``.
        **settings: As for `Config`; also ``app_dir``.

    Raises:
        SystemExit: The server could not start; in uvicorn's statuses.
    """
    app_dir = settings.get("app_dir")
    if app_dir is not None:
        sys.path.insert(0, app_dir)
    config = Config(app, **settings)
    if config.use_subprocess:
        if not isinstance(app, str):
            logging.getLogger("uvicorn.error").warning(
                "You must pass the application as an import string to enable 'reload' or 'workers'."
            )
            sys.exit(1)
        status = _run_processes(config)
        if status:
            sys.exit(status)
        return
    server = Server(config=config)
    with contextlib.suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        sys.exit(STARTUP_FAILURE)


def _run_processes(config: Config) -> int:
    from bridge.supervisor.apart import run_apart

    try:
        settings, _ = config.settings()
        return run_apart(settings, partial(_prepare, *installed))
    except ConfigError as exc:
        sys.stderr.write(f"{getattr(exc, 'app_traceback', '')}bridge: {exc}\n")
        return 1


class _Command:
    """The command ``uvicorn``, as ``python -m uvicorn`` and its script start it."""

    def __call__(self, args: Sequence[str] | None = None, prog_name: str | None = None, **more: Any) -> None:
        """Serve as the command line says.

        Args:
            args: What follows the command; without them, the program's own.
            prog_name: Ignored.
            **more: Ignored.

        Raises:
            SystemExit: At the end.
        """
        from bridge.cli import main

        sys.exit(main(["uvicorn", *(sys.argv[1:] if args is None else args)]))

    main = __call__


def _prepare(*names: str) -> None:
    if names:
        install_all(*names)
    stand_for("uvicorn")


class _Formatter(logging.Formatter):
    """A formatter that takes uvicorn's arguments."""

    def __init__(
        self, fmt: str | None = None, datefmt: str | None = None, style: Any = "%", use_colors: Any = None
    ) -> None:
        super().__init__(fmt=fmt, datefmt=datefmt, style=style)
        self.use_colors = use_colors

    def should_use_colors(self) -> bool:
        """Tell whether to."""
        return bool(self.use_colors)

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.__dict__["levelprefix"] = f"{record.levelname}:".ljust(9)
        if isinstance(record.args, tuple) and len(record.args) == 5:
            client, method, path, version, status = record.args
            line = f"{method} {path} HTTP/{version}"
            record.__dict__.update(client_addr=client, request_line=line, status_code=status)
        return super().formatMessage(record)


def install() -> None:
    """Replace uvicorn's names with those of this module."""
    server = {"Server": Server}
    config = {"Config": Config}
    everything = {**server, **config, "run": run, "main": _Command()}
    uvicorn: Any = importable("uvicorn")
    places: dict[str, dict[str, Any]] = {"uvicorn": everything, "uvicorn.config": config, "uvicorn.server": server}
    places["uvicorn.main"] = everything
    if uvicorn is None or getattr(uvicorn, "__stand_in__", False):
        formatters = dict.fromkeys(("DefaultFormatter", "AccessFormatter", "ColourizedFormatter"), _Formatter)
        places["uvicorn"]["__version__"] = DIALECT.version
        places["uvicorn.logging"] = {**formatters, "TRACE_LOG_LEVEL": 5}
        places["uvicorn.config"] = {**config, "LOGGING_CONFIG": LOGGING_CONFIG}
    else:
        _DEFAULTS["log_config"] = uvicorn.config.LOGGING_CONFIG
    put_in_place(places)
