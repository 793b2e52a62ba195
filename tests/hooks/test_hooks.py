"""Functions of the user's: which are called, where, in which order, and what they may do."""

from __future__ import annotations

import io
import logging
import os
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from bridge.adapters.wsgi.filewrapper import FileWrapper
from bridge.apps.detection import Interface
from bridge.apps.lifecycle import MountPoint
from bridge.apps.loading import TargetError
from bridge.config import Config
from bridge.config.hooks import POINTS, Hooks
from bridge.config.sources import load
from bridge.errors import ConfigError
from bridge.hooks import NO_HOOKS, hooks_of, reloaded
from bridge.hooks.functions import Functions
from bridge.hooks.logger import Logger, make_logger, overrides_access
from bridge.hooks.master import MasterHooks
from bridge.hooks.objects import WorkerView
from bridge.hooks.requests import WSGIHooks
from bridge.hooks.settings import SettingsView
from tests.support.running import Running, get


def hooks(**functions: Any) -> Hooks:
    return Hooks(functions.items())


def master(logger_class: Any = None, **functions: Any) -> MasterHooks:
    found = hooks_of(Config(workers=2, hooks=Hooks(functions.items(), {"proc_name": "shop"}, logger_class)))
    assert isinstance(found, MasterHooks)
    return found


# --- all of them, in processes ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "options"),
    [("hooked:wsgi", ["--loop", "asyncio"]), ("hooked:asgi", ["--loop", "uvloop"]), ("hooked:wsgi", ["--preload"])],
    ids=["wsgi", "asgi", "preload"],
)
def test_a_life(target: str, options: list[str]) -> None:
    given = [word for point in POINTS for word in ("--hooks", f"{point}=hooked:{point}")]
    with Running(target, "--workers", "1", *options, *given) as server:
        address = server.address()
        for path in ("/", "/raise", "/retire"):
            status, fields, content = get(address, path)
            assert (status, fields["x-seen"], content) == (200, "1 https", b"hi")
            if path == "/":  # a thread calls the hook after the response; another may have the next request by then
                server.messages.wait("HOOK post_request")
        server.messages.wait(r"HOOK child_exit")
        server.signal("SIGHUP")
        server.messages.wait(r"Reloaded")
        server.messages.wait(r"HOOK child_exit", 2)
        assert server.end("SIGINT") == 0
    text = server.messages.text
    found = re.findall(r"HOOK (\w+) of (\S+) in (\d+): ?(.*)", text)
    names = [name for name, _, _, _ in found]
    assert names[:4] == ["nworkers_changed", "on_starting", "when_ready", "pre_fork"]
    assert found[0][3] == "1 None"
    assert found[1][3] == "1 1"
    assert found[3][3] == "[booting] 1"
    first = [(name, rest) for name, _, pid, rest in found if pid == found[4][2]]
    app = target.partition(":")[2]
    assert [name for name, _ in first[:4]] == ["post_fork", "post_worker_init", "pre_request", "post_request"]
    assert dict(first)["post_worker_init"] == f"{app} True"
    assert dict(first)["post_request"] == "200 2 1"
    assert [name for name, _ in first[-2:]] == ["terminate", "worker_exit"]
    assert "The hook post_request raised" in text
    assert "ValueError: of the hook" in text
    exits = [rest.split()[0] for name, _, pid, rest in found if name == "child_exit" and pid == str(server.pid)]
    assert exits[0] == found[4][2]
    assert names.count("pre_fork") == names.count("post_fork") == len(exits) == 3
    assert [rest for name, _, _, rest in found if name == "nworkers_changed"] == ["1 None", "1 1"]
    assert names.count("worker_int") == 1
    assert names[-1] == "on_exit"


@pytest.mark.slow
def test_a_worker_that_stands_still_says_gunicorns_words() -> None:
    given = [word for point in ("worker_abort", "child_exit") for word in ("--hooks", f"{point}=hooked:{point}")]
    given += ["--hooks", "pre_fork=hooked:pre_fork"]
    with Running("hooked:asgi", "--workers", "1", "--timeout-worker", "1", *given) as server:
        address = server.address()
        with pytest.raises(OSError):
            get(address, "/stand-still")
        server.messages.wait(r"WORKER TIMEOUT \(pid:\d+\)")
        server.messages.wait(r"HOOK worker_abort")
        server.messages.wait(r"HOOK child_exit")
        assert server.end() == 0


# --- functions -------------------------------------------------------------------------------------------------------


def test_hooks_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bridge.toml").write_text('workers = 1\n[hooks]\nwhen_ready = "os:getpid"\non_exit = "os.path:join"\n')
    assert load([], {}).hooks == (("when_ready", "os:getpid"), ("on_exit", "os.path:join"))


@pytest.mark.parametrize("text", ["when_ready", "nothing=os:getpid", "when_ready=os", "when_ready=os.getpid"])
def test_a_text_that_is_no_hook(text: str) -> None:
    with pytest.raises(ConfigError, match="is not POINT=module:function"):
        load(["--workers", "1", "--hooks", text], {})


def test_hooks_need_a_master() -> None:
    with pytest.raises(ConfigError, match="--hooks: need --workers"):
        Config(hooks=hooks(when_ready=print))
    assert Config(hooks=hooks(when_ready=print), reload=True).hooks


def test_without_hooks_there_is_nothing() -> None:
    assert hooks_of(Config()) is NO_HOOKS
    assert NO_HOOKS.in_worker(NO_HOOKS.new_worker(0)) is None


@pytest.mark.parametrize("name", ["nowhere:f", "os:nothing", "os:sep"])
def test_a_function_that_is_not_there(name: str) -> None:
    with pytest.raises(ConfigError, match=f"hooks: when_ready = '{name}'"):
        Functions(Hooks([("when_ready", name)]))


def test_a_function_that_raises_is_named(caplog: pytest.LogCaptureFixture) -> None:
    def fails(server: Any) -> None:
        raise KeyError("x")

    functions = Functions(hooks(when_ready=fails))
    assert functions.call("when_ready", None)
    assert functions.call("on_exit", None)
    assert "The hook when_ready raised" in caplog.text


def test_a_function_that_exits() -> None:
    functions = Functions(hooks(worker_int=lambda worker: sys.exit(3)))
    assert not functions.call("worker_int", None)
    with pytest.raises(SystemExit):
        functions.call("worker_int", None, may_exit=True)


def test_a_function_that_exits_where_nothing_ends_is_named(caplog: pytest.LogCaptureFixture) -> None:
    functions = Functions(hooks(post_fork=lambda server, worker: sys.exit(7), worker_abort=lambda worker: sys.exit(1)))
    assert not functions.call("post_fork", None, None)
    assert "The hook post_fork raised SystemExit(7)" in caplog.text
    functions.call("worker_abort", None)
    assert "worker_abort" not in caplog.text


def test_a_coroutine_function_is_not_awaited(caplog: pytest.LogCaptureFixture) -> None:
    async def waits(server: Any) -> None: ...

    assert Functions(hooks(when_ready=waits)).call("when_ready", None)
    assert "when_ready is a coroutine function" in caplog.text


@pytest.mark.parametrize("number", [2, 3, 4])
def test_post_request_takes_two_to_four_arguments(number: int) -> None:
    got: list[Any] = []
    takers = {
        2: lambda a, b: got.extend([a, b]),
        3: lambda a, b, c: got.extend([a, b, c]),
        4: lambda *all_of_them: got.extend(all_of_them),
    }
    Functions(hooks(post_request=takers[number])).call("post_request", 1, 2, 3, 4)
    assert got == [1, 2, 3, 4][:number]


# --- objects ---------------------------------------------------------------------------------------------------------


def test_settings_have_gunicorns_names() -> None:
    cfg = SettingsView(load(["a:a", "--workers", "3", "--port", "81", "--preload", "--no-access-log"], {}), {})
    assert (cfg.workers, cfg.bind, cfg.preload_app, cfg.accesslog) == (3, ["127.0.0.1:81"], True, None)
    assert cfg.settings["workers"].get() == 3
    assert cfg.timeout_keep_alive == 5.0
    assert not hasattr(cfg, "no_such_setting")
    cfg.set("workers", 4)
    assert cfg.workers == 4
    assert SettingsView(Config(), {"proc_name": "shop", "user": None}).proc_name == "shop"


def test_a_worker_may_retire_itself() -> None:
    retired: list[bool] = []
    hooked = master(pre_fork=lambda server, worker: None)
    worker = hooked.new_worker(0)
    assert str(worker) == "<Worker [booting]>"
    worker.retire = lambda: retired.append(True)
    worker.alive = True
    worker.alive = False
    worker.alive = False
    assert (retired, worker.alive) == ([True], False)
    worker.notify()
    worker.tmp.notify()


def test_workers_are_the_same_objects_in_all_hooks() -> None:
    seen: list[tuple[str, Any]] = []
    hooked = master(
        pre_fork=lambda server, worker: seen.append(("pre_fork", worker)),
        child_exit=lambda server, worker: seen.append(("child_exit", worker)),
    )
    worker = hooked.new_worker(0)
    hooked.forked(worker, 7)
    hooked.ended(7)
    hooked.ended(8)
    assert seen == [("pre_fork", worker), ("child_exit", worker)]
    assert worker.pid == 7


def test_a_reload_takes_new_functions(caplog: pytest.LogCaptureFixture) -> None:
    called: list[str] = []
    hooked = master(on_reload=lambda server: called.append("old"))
    config = Config(workers=3, hooks=hooks(on_exit=lambda server: called.append("new")))
    assert reloaded(hooked, config, 3) is hooked
    hooked.exiting()
    broken = Config(workers=3, hooks=Hooks([("on_exit", "nowhere:f")]))
    reloaded(hooked, broken, 3)
    hooked.exiting()
    assert called == ["old", "new", "new"]
    assert isinstance(reloaded(NO_HOOKS, config, 3), MasterHooks)


# --- requests --------------------------------------------------------------------------------------------------------


def environ(path: str = "/a") -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "GET", "PATH_INFO": path, "QUERY_STRING": "q=1", "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http", "HTTP_ACCEPT_LANGUAGE": "en", "CONTENT_TYPE": "x/y", "REMOTE_ADDR": "192.0.2.1",
        "REMOTE_PORT": "99",
    }  # fmt: skip


class Closing:
    def __init__(self) -> None:
        self.closed = False

    def __iter__(self) -> Any:
        yield b"ab"
        yield b"c"

    def close(self) -> None:
        self.closed = True


def results() -> list[Any]:
    return [
        pytest.param(lambda: [b"ab", b"c"], 3, id="list"),
        pytest.param(lambda: iter([b"abc"]), 3, id="iterator"),
        pytest.param(Closing, 3, id="closing"),
        pytest.param(lambda: FileWrapper(io.BytesIO(b"abc")), 3, id="file"),
    ]


@pytest.mark.parametrize(("make", "size"), results())
def test_post_request_comes_when_the_response_is_closed(make: Any, size: int) -> None:
    seen: list[Any] = []
    made = make()
    worker = WorkerView(types.SimpleNamespace(pid=1, cfg=types.SimpleNamespace(max_requests=0), log=None,  # type: ignore[arg-type]
                                              LISTENERS=[], timeout=0), 1)  # fmt: skip

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Length", "3")])
        return made

    def after(worker: Any, req: Any, environ: Any, resp: Any) -> None:
        seen.append((resp.status, resp.sent, resp.response_length, req.uri, req.query, req.remote_addr))

    wrapped = WSGIHooks(app, Functions(hooks(post_request=after)), worker, logs=False)
    result = wrapped(environ(), lambda status, headers: None)
    assert type(result) is FileWrapper if isinstance(made, FileWrapper) else len(seen) == 0
    assert b"".join(result) == b"abc"
    result.close()
    assert seen == [("200 OK", size, 3, "/a?q=1", "q=1", ("192.0.2.1", 99))]
    assert worker.nr == 1
    if isinstance(made, Closing):
        assert made.closed
    if isinstance(made, FileWrapper):
        assert made.filelike.closed


def test_requests_are_left_alone_without_such_functions() -> None:
    hooked = master(pre_fork=lambda server, worker: None).in_worker(master(on_exit=print).new_worker(0))
    points = [MountPoint("", "", print, Interface.WSGI)]
    assert hooked.wrap(points) is points


def test_requests_of_other_interfaces_are_refused() -> None:
    owner = master(pre_request=lambda worker, req: None)
    hooked = owner.in_worker(owner.new_worker(0))
    with pytest.raises(TargetError, match="pre_request and post_request are for WSGI and ASGI 3"):
        hooked.wrap([MountPoint("", "", print, Interface.CALLABLE)])


# --- loggers ---------------------------------------------------------------------------------------------------------


class Mine(Logger):
    lines: list[str] = []  # noqa: RUF012 - shared with the test

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.lines.clear()

    def critical(self, msg: str, *args: Any, **kwargs: Any) -> None:
        self.lines.append(msg % args)

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        atoms = self.atoms(resp, req, environ, request_time)
        self.lines.append(" ".join(atoms[name] for name in ("m", "s", "{accept-language}i", "{x-a}o")))


def test_a_logger_class_gets_time_outs_and_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    owner = master(logger_class=Mine)
    owner.stalled(os.getpid(), abort=False)
    assert Mine.lines == [f"WORKER TIMEOUT (pid:{os.getpid()})"]
    hooked = owner.in_worker(owner.new_worker(0))

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("X-A", "b")])
        return [b"x"]

    [point] = hooked.wrap([MountPoint("", "", app, Interface.WSGI)])
    point.app(environ(), lambda status, headers: None).close()
    assert Mine.lines[1:] == ["GET 200 en b"]


def test_the_installed_logger_of_gunicorn_works() -> None:
    glogging = pytest.importorskip("gunicorn.glogging", reason="gunicorn is not installed (extra dev)")
    logging.getLogger("gunicorn.error").addHandler(logging.NullHandler())  # as bridge shares its own
    log = make_logger(glogging.Logger, SettingsView(Config(workers=1), {}))
    assert type(log) is glogging.Logger
    assert [type(handler) for handler in log.error_log.handlers] == [logging.StreamHandler]
    for handler in log.error_log.handlers[:]:
        log.error_log.removeHandler(handler)
    log.error_log.propagate = True


def test_only_a_class_that_writes_requests_itself_gets_them() -> None:
    class Quiet(Logger):
        def setup(self, cfg: Any) -> None: ...

    assert [overrides_access(cls) for cls in (Logger, Quiet, Mine)] == [False, False, True]
    glogging = pytest.importorskip("gunicorn.glogging", reason="gunicorn is not installed (extra dev)")
    derived = type("Derived", (glogging.Logger,), {})
    assert not overrides_access(derived)
    assert overrides_access(type("Atoms", (derived,), {"atoms": lambda self, *_: {}}))


def test_a_logger_class_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Logger):
        def setup(self, cfg: Any) -> None:
            raise OSError("no file")

    cfg = SettingsView(Config(workers=1), {})
    assert type(make_logger(Broken, cfg)) is Logger
    assert type(make_logger("nowhere.Logger", cfg)) is Logger
    assert "cannot be used" in caplog.text
    assert "nowhere.Logger cannot be imported" in caplog.text
