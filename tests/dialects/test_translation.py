"""What becomes of command lines, variables and files."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from bridge.config.files import read_file
from bridge.config.sources import resolve
from bridge.dialects import dialect
from bridge.dialects.command import config_of, layer_of
from bridge.dialects.explain import explain, toml
from bridge.dialects.table import Fate, Translation, Usage
from bridge.errors import ConfigError

pytestmark = pytest.mark.usefixtures("place")


def translate(line: str, environ: dict[str, str] | None = None) -> Translation:
    name, *words = shlex.split(line)
    return dialect(name).translate(words, environ or {})


def settings(line: str, environ: dict[str, str] | None = None) -> dict[str, Any]:
    """Return the settings that differ from bridge's defaults, as text."""
    translation = translate(line, environ)
    config = config_of(translation, environ or {})
    return {
        name: ",".join(map(str, value)) if isinstance(value, tuple) and name != "header" else value
        for name in layer_of(translation, environ or {})
        for value in [getattr(config, name)]
    }


LINES: list[tuple[str, dict[str, Any]]] = [
    # gunicorn: arguments by argparse's rules
    ("gunicorn app:app", {"target": "app:app", "workers": 1, "threads": 1, "bind": "127.0.0.1:8000"}),
    ("gunicorn app:app", {"access_log": False}),
    ("gunicorn app", {"target": "app:application", "interface": "wsgi"}),
    ("gunicorn app:app", {"timeout_request": 30.0, "timeout_worker": 30.0}),
    ("gunicorn -w4 -b :5000 app:app", {"workers": 4, "bind": ":5000"}),
    ("gunicorn -b 0.0.0.0 -b '[::]:5000' -b unix:/run/a.sock a:a", {"bind": "0.0.0.0:8000,[::]:5000,unix:/run/a.sock"}),
    ("gunicorn --log-le DEBUG a:a", {"log_level": "debug"}),
    ("gunicorn -k gthread --threads 8 -t 60 a:a", {"threads": 8, "timeout_worker": 60.0, "timeout_request": None}),
    ("gunicorn --threads 2 a:a", {"threads": 2, "timeout_request": None}),
    ("gunicorn -k gevent --worker-class gthread a:a", {"threads": 1}),
    ("gunicorn -k uvicorn.workers.UvicornWorker a:a", {"interface": "asgi3", "timeout_request": None}),
    ("gunicorn -k uvicorn_worker.UvicornWorker a:a", {"interface": "asgi3"}),
    ("gunicorn -k uvicorn.workers.UvicornH11Worker a:a", {"interface": "asgi3"}),
    ("gunicorn -k uvicorn.workers.UvicornWorker a:a", {"forwarded_fields": "x-forwarded-for,x-forwarded-proto"}),
    ("gunicorn -t 0 a:a", {"timeout_worker": None, "timeout_request": None}),
    ("gunicorn --timeout=9999 a:a", {"timeout_worker": None, "timeout_request": None}),
    ("gunicorn --access-logfile - - a:a", {"access_log": True, "access_logfile": "-", "target": "-:application"}),
    ("gunicorn -e A=1 --env B=x,y a:a", {"env": "('A', '1'),('B', 'x,y')"}),
    ("granian --interface asgi src/main:app", {"target": "src/main.py:app"}),
    ("granian --interface asgi src/main", {"target": "src/main.py"}),
    ("hypercorn src/main", {"target": "src/main.py:app"}),
    ("gunicorn a:a --proxy-protocol", {"proxy_protocol": "auto", "target": "a:a"}),
    ("gunicorn --proxy-protocol -w 2 a:a", {"proxy_protocol": "auto", "workers": 2}),
    ("gunicorn --proxy-protocol v1 a:a", {"proxy_protocol": "v1"}),
    ("gunicorn --proxy-protocol=off a:a", {"proxy_protocol": "off"}),
    ("gunicorn --forwarded-allow-ips '*' a:a", {"forwarded_allow_ips": "*", "proxy_headers": True}),
    ("gunicorn --forwarded-allow-ips '' a:a", {"forwarded_allow_ips": "unix", "proxy_headers": True}),
    ("gunicorn --forwarded-allow-ips '10.0.0.1, ::1' a:a", {"forwarded_allow_ips": "10.0.0.1,::1,unix"}),
    ("gunicorn --forwarded-allow-ips 10.0.0.1 -k asgi a:a", {"forwarded_allow_ips": "10.0.0.1,unix"}),
    ("gunicorn --forwarded-allow-ips 10.0.0.1 -k uvicorn_worker.UvicornWorker a:a",
     {"forwarded_allow_ips": "10.0.0.1", "forwarded_fields": "x-forwarded-for,x-forwarded-proto"}),
    ("gunicorn --forwarded-allow-ips '' -k uvicorn_worker.UvicornWorker a:a", {"proxy_headers": False}),
    ("gunicorn --limit-request-field_size 0 a:a", {"limit_request_field_size": 65536}),
    ("gunicorn --max-requests 0 a:a", {"limit_max_requests": None}),
    ("gunicorn -m 007 a:a", {"umask": 7}),
    ("gunicorn --access-logformat '%(h)s %(nope)s %(p)d %({x-a}i)s' a:a",
     {"access_logformat": "%(h)s - %(p)s %({x-a}i)s"}),
    ("gunicorn --keep-alive 75 --graceful-timeout 5 a:a",
     {"timeout_keep_alive": 75.0, "timeout_graceful_shutdown": 5.0}),
    ("gunicorn --statsd-host localhost:8125 --statsd-prefix shop. a:a", {"statsd_prefix": "shop.gunicorn"}),
    ("granian --interface wsgi --workers-max-rss 512 a:a", {"workers_max_rss": 512 << 20}),
    # uvicorn
    ("uvicorn app:app", {"bind": "127.0.0.1:8000", "proxy_headers": True, "forwarded_strip": False}),
    ("uvicorn --host 0.0.0.0 --port 80 app:app --workers 4", {"bind": "0.0.0.0:80", "workers": 4}),
    ("uvicorn --host '' a:a", {"bind": "127.0.0.1:8000"}),
    ("uvicorn --host :: a:a", {"bind": "[::]:8000"}),
    ("uvicorn --ws none --http httptools --loop uvloop a:a", {"ws": False, "loop": "uvloop"}),
    ("uvicorn --ws-ping-interval 0 a:a", {"ws_ping_interval": None}),
    ("uvicorn --uds /run/a.sock --port 1 a:a", {"bind": "unix:/run/a.sock"}),
    ("uvicorn --log-level trace --no-access-log a:a", {"log_level": "debug", "access_log": False}),
    ("uvicorn --log-level warning --access-log a:a", {"log_level": "warning", "access_log": False}),
    ("hypercorn --log-level ERROR --access-logfile - a:a", {"log_level": "error", "access_log": False}),
    ("uvicorn --header X-A:b --header 'c: d,e' a:a", {"header": ((b"x-a", b"b"), (b"c", b"d,e"))}),
    ("uvicorn --factory app:create --reload --reload-dir a --reload-dir b", {"reload_dir": "a,b", "factory": True}),
    # hypercorn
    ("hypercorn src/main:app", {"target": "src/main.py:app", "workers": 1, "access_log": False}),
    ("hypercorn wsgi:a:b -b 0.0.0.0", {"target": "a:b", "interface": "wsgi", "bind": "0.0.0.0:8000"}),
    ("hypercorn a:a --bind ::", {"bind": "[::]:8000"}),
    ("hypercorn a:a --access-logfile - -k uvloop --keep-alive 3", {"access_log": True, "loop": "uvloop"}),
    # granian
    ("granian --interface asgi a:a", {"interface": "asgi3", "workers": 1, "access_log": False, "target": "a:a"}),
    ("granian --interface asginl a.main", {"lifespan": "off", "target": "a.main:app"}),
    ("granian --interface wsgi --factory a", {"target": "a:create_app", "factory": True}),
    ("granian --interface wsgi --http1-header-read-timeout 2500 a", {"timeout_request_head": 2.5}),
    ("granian --interface wsgi --workers-lifetime 1h30m a", {"workers_lifetime": 5400.0}),
    # daphne
    ("daphne a:a", {"bind": "127.0.0.1:8000", "access_log": True}),
    ("daphne -b 0.0.0.0 -p 80 -u /a a:a", {"bind": "0.0.0.0:80,unix:/a"}),
    ("daphne -e ssl:443:privateKey=k.pem:certKey=c.pem a:a",
     {"bind": ":443", "ssl_certfile": "c.pem", "ssl_keyfile": "k.pem"}),
    ("daphne -e tcp:8001:interface=127.0.0.1 -v0 a:a", {"bind": "127.0.0.1:8001", "access_log": False}),
    ("daphne -t 9 --ping-interval 5 a:a", {"timeout_request": 9.0, "ws_ping_interval": 5.0}),
    # waitress
    ("waitress-serve a:a", {"bind": ":8080", "threads": 4, "interface": "wsgi"}),
    ("waitress-serve --listen='*:80 [::1]:81' --call a:make", {"bind": ":80,[::1]:81", "factory": True}),
    ("waitress-serve --port=80 --url-prefix=app a:a", {"bind": "0.0.0.0:80", "root_path": "/app"}),
    ("waitress-serve --trusted-proxy 10.0.0.1 --trusted-proxy-headers 'x-forwarded-for x-forwarded-proto' a:a",
     {"forwarded_allow_ips": "10.0.0.1", "forwarded_fields": "x-forwarded-for,x-forwarded-proto"}),
    ("waitress-serve --trusted-proxy 10.0.0.1 a:a", {"forwarded_fields": "x-forwarded-proto"}),
]  # fmt: skip


@pytest.mark.parametrize(("line", "wanted"), LINES)
def test_command_lines(line: str, wanted: dict[str, Any]) -> None:
    found = settings(line)
    assert {name: found.get(name) for name in wanted} == wanted


ENVIRONMENTS: list[tuple[str, dict[str, str], dict[str, Any]]] = [
    ("gunicorn a:a", {"WEB_CONCURRENCY": "3", "PORT": "5000"}, {"workers": 3, "bind": "0.0.0.0:5000"}),
    ("gunicorn a:a", {"GUNICORN_CMD_ARGS": "-w 2 --threads=3"}, {"workers": 2, "threads": 3}),
    ("gunicorn -w 5 a:a", {"GUNICORN_CMD_ARGS": "-w 2", "WEB_CONCURRENCY": "7"}, {"workers": 5}),
    ("gunicorn a:a", {"BRIDGE_ACCESS_LOG": "on", "BRIDGE_TIMEOUT_KEEP_ALIVE": "9"}, {"access_log": True}),
    ("gunicorn a:a", {"BRIDGE_TIMEOUT_REQUEST": "9", "BRIDGE_THREADS": "3"}, {"timeout_request": 9.0, "threads": 3}),
    ("gunicorn -t 5 a:a", {"BRIDGE_TIMEOUT_REQUEST": "9"}, {"timeout_request": 5.0}),
    ("gunicorn", {"GUNICORN_CMD_ARGS": "a:b"}, {"target": "a:b"}),
    ("gunicorn a:a", {"SCRIPT_NAME": "/a"}, {"root_path": "/a"}),
    ("gunicorn -e SCRIPT_NAME=/b a:a", {"SCRIPT_NAME": "/a"}, {"root_path": "/b"}),
    ("gunicorn -k uvicorn.workers.UvicornWorker a:a", {"SCRIPT_NAME": "/a"}, {"root_path": None}),
    ("uvicorn", {"UVICORN_APP": "a:a", "UVICORN_PORT": "81", "UVICORN_RELOAD": "true"}, {"bind": "127.0.0.1:81"}),
    ("uvicorn a:a", {"PORT": "5000"}, {"bind": "127.0.0.1:8000"}),
    ("uvicorn --port 5 a:a", {"UVICORN_PORT": "6"}, {"bind": "127.0.0.1:5"}),
    ("uvicorn a:a", {"UVICORN_HEADERS": "A:b C:d"}, {"header": ((b"a", b"b"), (b"c", b"d"))}),
    ("granian a:a", {"GRANIAN_INTERFACE": "wsgi", "GRANIAN_WEBSOCKETS": "0"}, {"interface": "wsgi", "ws": False}),
]  # fmt: skip


@pytest.mark.parametrize(("line", "environ", "wanted"), ENVIRONMENTS)
def test_variables(line: str, environ: dict[str, str], wanted: dict[str, Any]) -> None:
    found = settings(line, environ)
    assert {name: found.get(name) for name in wanted} == wanted


MESSAGES = [
    ("gunicorn --foo a:a", "gunicorn: error: unrecognized arguments: --foo"),
    ("gunicorn --keepalive 5 a:a", "gunicorn: error: unrecognized arguments: --keepalive"),
    ("gunicorn --log a:a", "gunicorn: error: ambiguous option: --log could match --log-config, --log-config-json,"),
    ("gunicorn -w x a:a", "gunicorn: error: argument -w/--workers: invalid int value: 'x'"),
    ("gunicorn -w -1 a:a", "must be positive"),
    ("gunicorn -w", "gunicorn: error: argument -w/--workers: expected one argument"),
    ("gunicorn", "gunicorn: error: No application module specified."),
    ("uvicorn --foo a:a", "Error: No such option: --foo"),
    ("uvicorn --prot 1 a:a", "Error: No such option: --prot Did you mean --port?"),
    ("uvicorn --port x a:a", "Error: Invalid value for '--port': 'x' is not a valid integer."),
    ("uvicorn --lifespan x a:a", "Error: Invalid value for '--lifespan': 'x' is not one of 'auto', 'on', 'off'."),
    ("uvicorn", "Error: Missing argument 'APP'."),
    ("uvicorn --port", "Error: Option '--port' requires an argument."),
    ("uvicorn a:a b", "Error: Got unexpected extra argument (b)"),
    ("granian --foo a", "Error: No such option: --foo"),
    ("hypercorn", "hypercorn: error: the following arguments are required: application"),
    ("daphne a:channel_layer", "name the ASGI application"),
    ("waitress-serve --foo a:a", "Error: option --foo not recognized"),
    ("waitress-serve --po", "Error: option --port requires argument"),
    ("waitress-serve --trusted-proxy-h", "Error: option --trusted-proxy-headers requires argument"),
    ("waitress-serve --trusted-proxy-count=1 a:a", "trusted_proxy_count has no meaning without setting trusted_proxy"),
    ("waitress-serve --trusted-proxy-headers=forwarded a:a", "trusted_proxy_headers has no meaning"),
    ("waitress-serve", "Error: Specify one application only"),
    ("waitress-serve --host a --listen b:1 a:a", "host or port may not be set if listen is set."),
]


@pytest.mark.parametrize(("line", "message"), MESSAGES)
def test_wrong_command_lines(line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(shlex.split(line), {}) == 2
    out, err = capsys.readouterr()
    assert (out, message in err) == ("", True), err
    assert "docs/dialects.md" in err


REFUSED = [
    ("gunicorn -k gevent a:a", "patches no sockets"),
    ("gunicorn -k eventlet a:a", "patches no sockets"),
    ("gunicorn -k aiohttp.GunicornWebWorker a:a", "aiohttp"),
    ("gunicorn -k nowhere.Worker a:a", "nowhere.Worker cannot be imported"),
    ("gunicorn -k worker a:a", "there is no worker class 'worker'"),
    ("gunicorn --protocol uwsgi a:a", "proxy_pass"),
    ("uvicorn --loop my:loop a:a", "auto, asyncio and uvloop"),
    ("uvicorn '${APP}'", "no shell has replaced"),
    ("granian a:a", "add --interface"),
    ("granian --interface rsgi a:a", "add --interface"),
    ("granian --interface wsgi --static-path-mount a a:a", "whitenoise"),
    ("hypercorn -k trio a:a", "asyncio or uvloop"),
    ("hypercorn --certfile c --keyfile k --insecure-bind :80 a:a", "either TLS or plain HTTP"),
    ("daphne -e onion:80 a:a", "the kinds are"),
]


@pytest.mark.parametrize(("line", "reason"), REFUSED)
def test_refused(line: str, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(shlex.split(line), {}) == 2
    assert reason in " ".join(capsys.readouterr().out.split())


# --- gunicorn.conf.py ------------------------------------------------------------------------------------------------


def conf(place: Path, text: str, name: str = "gunicorn.conf.py") -> None:
    (place / name).write_text(text, encoding="utf-8")


FILES: list[tuple[str, dict[str, Any]]] = [
    ("import multiprocessing\nworkers = min(multiprocessing.cpu_count() * 2 + 1, 2)", {"workers": 2}),
    ("workers: int = 3\nworkers = '4'\nkeepallive = 5\nworker = 9", {"workers": 4}),
    ("bind = '0.0.0.0'", {"bind": "0.0.0.0:8000"}),
    ("bind = ['0.0.0.0:80', ':81']", {"bind": "0.0.0.0:80,:81"}),
    ("accesslog = '-'\nerrorlog = None\nloglevel = 'WARN'", {"access_log": True, "log_level": "warning"}),
    ("accesslog = None", {"access_log": False}),
    ("worker_tmp_dir = '/dev/shm'\npidfile = None\nuser = None\ntmp_upload_dir = None", {"workers": 1}),
    ("raw_env = ['A=1', 'B=2']", {"env": "('A', '1'),('B', '2')"}),
    ("raw_env = 'A=1'", {"env": "('A', '1')"}),
    ("umask = '0o027'", {"umask": 0o27}),
    ("umask = 0", {"workers": 1}),
    ("proxy_protocol = True\nproxy_allow_ips = '*'", {"proxy_protocol": "auto", "proxy_allow_from": "*"}),
    ("import ssl\ncert_reqs = ssl.CERT_NONE\nssl_version = 5", {"workers": 1}),
    ("secure_scheme_headers = {'X-Forwarded-Proto': 'https'}", {"forwarded_fields": "x-forwarded-proto,script_name"}),
    ("secure_scheme_headers = {}\nforwarder_headers = ''", {"forwarded_fields": "x-forwarded-prefix"}),
    ("forwarder_headers = 'PATH_INFO'", {"forwarded_fields": "x-forwarded-proto,x-forwarded-protocol,x-forwarded-ssl"}),
    ("secure_scheme_headers = {'X-Forwarded-Ssl': 'on'}\nworker_class = 'uvicorn_worker.UvicornWorker'",
     {"forwarded_fields": "x-forwarded-for,x-forwarded-proto"}),
    ("forwarded_allow_ips = '10.0.0.0/8,172.16.0.0/12'", {"forwarded_allow_ips": "10.0.0.0/8,172.16.0.0/12,unix"}),
    ("raw_env = ['SCRIPT_NAME=/a']", {"root_path": "/a"}),
    ("raw_env = ['SCRIPT_NAME=/a']\nworker_class = 'asgi'", {"root_path": None}),
    ("preload_app = 'true'\nreload = False\nreuse_port = True", {"preload": True, "reuse_port": True}),
    ("wsgi_app = 'pkg.wsgi:application'", {"target": "a:a"}),
    ("logconfig_dict = {}", {"access_log": False}),
    ("from pathlib import Path\npidfile = Path('a') / 'b.pid'", {"pid": "a/b.pid"}),
    ("import os\nfor k, v in {'GUNICORN_THREADS': '3', 'GUNICORN_CMD_ARGS': ''}.items():\n"
     "    locals()[k[9:].lower()] = v\nworker_class = 'gthread'", {"threads": 3}),
    ("class W(__import__('gunicorn.workers.gthread', fromlist=['x']).ThreadWorker):\n    pass\n"
     "worker_class = W\nthreads = 5", {"threads": 5}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "wanted"), FILES)
def test_configuration_files(place: Path, text: str, wanted: dict[str, Any]) -> None:
    if "gunicorn.workers" in text:
        pytest.importorskip("gunicorn", reason="gunicorn is not installed (extra dev)")
    conf(place, text)
    found = settings("gunicorn a:a")
    assert {name: found.get(name) for name in wanted} == wanted


def test_precedence(place: Path) -> None:
    conf(place, "workers = 3\nthreads = 3\ntimeout = 3\nraw_env = ['A=1']\nwsgi_app = 'in:file'")
    environ = {"WEB_CONCURRENCY": "9", "GUNICORN_CMD_ARGS": "--threads 4 --timeout 4"}
    found = settings("gunicorn -t 5 -e B=2", environ)
    assert (found["workers"], found["threads"], found["timeout_worker"]) == (3, 4, 5.0)
    assert found["env"] == "('B', '2')"
    assert found["target"] == "in:file"


@pytest.mark.parametrize("where", ["other.py", "file:other.py", "python:other", "noending"])
def test_named_files(place: Path, where: str) -> None:
    conf(place, "workers = 3", "noending" if where == "noending" else "other.py")
    assert settings(f"gunicorn -c {where} a:a")["workers"] == 3
    sys.modules.pop("other", None)


WRONG_FILES = [
    ("workers = None", "Invalid value for workers: None"),
    ("workers = 2.0", "Invalid value for workers: 2.0"),
    ("reload = 'yes'", "Invalid value for reload: 'yes'"),
    ("threads = None", "Invalid value for threads: None"),
    ("pidfile = 5", "Invalid value for pidfile: 5"),
    ("forwarded_allow_ips = ['*']", "Invalid value for forwarded_allow_ips"),
    ("def when_ready(): pass", "must have an arity of: 1"),
    ("when_ready = 'nowhere.f'", "not a function"),
    ("when_ready = 5", "not a function"),
]


@pytest.mark.parametrize(("text", "message"), WRONG_FILES)
def test_values_that_gunicorn_refuses(place: Path, text: str, message: str) -> None:
    conf(place, text)
    with pytest.raises(Usage, match=message):
        translate("gunicorn a:a")


BROKEN = [
    ("import nothing_of_that_name", "line 1: ModuleNotFoundError: No module named 'nothing_of_that_name'"),
    ("x = 1\nraise ValueError('no')", "line 2: ValueError: no"),
    ("x = (", "SyntaxError"),
    ("exit(3)", "SystemExit: 3"),
]


@pytest.mark.parametrize(("text", "message"), BROKEN)
def test_files_that_raise(place: Path, text: str, message: str) -> None:
    conf(place, text)
    with pytest.raises(ConfigError, match=r"gunicorn\.conf\.py") as raised:
        translate("gunicorn a:a")
    assert message in str(raised.value)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"'nowhere\.py': No such file"):
        translate("gunicorn -c nowhere.py a:a")


def test_a_configuration_of_loggers_switches_the_access_log_on(place: Path) -> None:
    conf(place, "logconfig_dict = {'loggers': {'gunicorn.error': {'level': 'WARNING', 'handlers': ['error_console']}}}")
    translation = translate("gunicorn a:a")
    config = config_of(translation, {})
    assert config.access_log
    assert isinstance(config.log_config, dict)
    assert config.log_config["version"] == 1
    assert "console" in config.log_config["handlers"]


def test_a_logger_class(place: Path) -> None:
    text = (
        "from bridge.hooks.logger import Logger\nclass Mine(Logger):\n    def access(self, *args): ...\n"
        "logger_class = Mine\naccesslog = '-'\n"
    )
    conf(place, text)
    config = config_of(translate("gunicorn a:a"), {})
    assert not config.access_log
    assert config.hooks.logger_class.__name__ == "Mine"
    conf(place, text.replace("    def access(self, *args): ...", "    pass"))
    assert config_of(translate("gunicorn a:a"), {}).access_log
    assert translate("gunicorn --logger-class nowhere.Logger a:a").status == 2


def test_arguments_of_a_worker_class(place: Path) -> None:
    (place / "classes.py").write_text(
        "class UvicornWorker:\n    __module__ = 'uvicorn.workers'\n"
        "UvicornWorker.__module__ = 'uvicorn.workers'\n"
        "class Mine(UvicornWorker):\n"
        "    CONFIG_KWARGS = {'loop': 'asyncio', 'http': 'h11', 'lifespan': 'off', 'root_path': '/x', 'odd': 1}\n",
        encoding="utf-8",
    )
    found = settings("gunicorn -k classes.Mine a:a")
    assert (found["interface"], found["loop"], found["lifespan"], found["root_path"]) == (
        "asgi3",
        "asyncio",
        "off",
        "/x",
    )
    outcome = next(o for o in translate("gunicorn -k classes.Mine a:a").outcomes if o.option == "-k")
    assert outcome.fate is Fate.NEAR
    assert "odd: bridge does not know it" in outcome.remark
    del sys.modules["classes"]


# --- other files -----------------------------------------------------------------------------------------------------


def test_files_of_hypercorn(place: Path) -> None:
    (place / "h.toml").write_text('bind = ["0.0.0.0:80"]\nworkers = 2\nunknown = 1\nloglevel = "DEBUG"\n')
    (place / "h.py").write_text("bind = '0.0.0.0:81'\nuse_reloader = True\n")
    (place / "hmod.py").write_text("workers = 3\n")
    assert settings("hypercorn -c h.toml a:a")["bind"] == "0.0.0.0:80"
    assert settings("hypercorn -c h.toml a:a -w 4")["workers"] == 4
    assert settings("hypercorn -c file:h.py a:a")["reload"] is True
    assert settings("hypercorn -c python:hmod a:a")["workers"] == 3
    for path, message in (("no.toml", "No such file"), ("h.py", "h.py: "), ("python:no_such", "no_such")):
        with pytest.raises(ConfigError, match=message):
            translate(f"hypercorn -c {path} a:a")


UWSGI = """
[uwsgi]
; a comment
base = /srv/site
chdir = %(base)/src
module = project.wsgi
http-socket = :$(PORT)
if-env = PROCS
processes = %(_)
endif =
if-not-env = PROCS
processes = 7
endif =
threads = 2
master
harakiri = 20
max-requests = 1000
uid = www-data
env = A=1
env = B=2
vacuum = true
buffer-size = 32768
"""


def test_files_of_uwsgi(place: Path) -> None:
    (place / "u.ini").write_text(UWSGI)
    environ = {"PORT": "5000", "PROCS": "4"}
    found = settings("uwsgi u.ini", environ)
    wanted = {
        "target": "project.wsgi:application", "bind": ":5000", "workers": 4, "threads": 2, "timeout_request": 20.0,
        "chdir": "/srv/site/src", "limit_max_requests": 1000, "user": "www-data", "preload": True,
        "env": "('A', '1'),('B', '2')", "limit_request_head": 32768,
    }  # fmt: skip
    assert {name: found.get(name) for name in wanted} == wanted
    assert settings("uwsgi --ini u.ini", {"PORT": "1"})["workers"] == 7
    assert settings("uwsgi --http :80 --wsgi-file a.py --callable app -p 3")["target"] == "a.py:app"


UWSGI_REFUSED = [
    ("socket = /run/a.sock", "proxy_pass"),
    ("http = :80\nstatic-map = /static=/srv/static", "whitenoise"),
    ("http = :80\ncron = 0 0 * * * x", "task queue"),
    ("http = :80\ngevent = 100", "threads = N"),
    ("http = :80\ndaemonize = /var/log/x", "supervisor"),
]


@pytest.mark.parametrize(("text", "reason"), UWSGI_REFUSED)
def test_uwsgi_refused(place: Path, text: str, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "u.ini").write_text(f"[uwsgi]\nmodule = a\n{text}\n")
    assert explain(["uwsgi", "u.ini"], {}) == 2
    assert reason in " ".join(capsys.readouterr().out.split())


def test_uwsgi_with_an_option_that_nobody_knows(place: Path) -> None:
    (place / "u.ini").write_text("[uwsgi]\nmodule = a\nprocesess = 3\n")
    with pytest.raises(Usage, match=r"'--procesess'; did you mean processes\? \(u.ini:3 procesess\)"):
        translate("uwsgi u.ini")


# --- start commands of public projects --------------------------------------------------------------------------------

COMMANDS = [
    line.split(" ", 1)
    for line in (Path(__file__).parent / "start_commands.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]


@pytest.mark.parametrize(("status", "line"), COMMANDS)
def test_start_commands(place: Path, status: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "gunicorn_config.py").write_text("workers = 2\n")
    (place / "configuration_of_gunicorn.py").write_text("workers = 2\n")
    assert explain(shlex.split(line), {}) == int(status), capsys.readouterr().out


# --- explain ---------------------------------------------------------------------------------------------------------


def test_explain_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(["gunicorn", "-w", "4", "--worker-tmp-dir", "/dev/shm", "a:a"], {}) == 0
    out = capsys.readouterr().out
    assert "-w 4\n    same as workers=4\n" in out
    assert "heartbeats need no files" in out
    assert explain(["gunicorn", "--spew", "a:a"], {}) == 1


EXPLAINED = [
    ("gunicorn -t 60 a:a", "-t 60 near as timeout_worker=60 timeout_request=60"),
    ("gunicorn -k asgi -t 60 a:a", "-t 60 near as timeout_worker=60 a worker whose event loop stands still for so long"
     " is replaced; a request may take longer"),
    ("gunicorn -t 0 a:a", "-t 0 near as timeout_worker=off neither a request nor a worker has"),
    ("gunicorn -k gthread --threads 4 a:a", "--threads 4 same as threads=4"),
    ("gunicorn a:a", "forwarded_allow_ips=127.0.0.1,::1,unix forwarded_strip=off"
     " forwarded_fields=x-forwarded-proto,x-forwarded-protocol,x-forwarded-ssl,script_name"),
    ("gunicorn -k uvicorn_worker.UvicornWorker a:a", "forwarded_allow_ips=127.0.0.1,::1 forwarded_strip"),
    ("gunicorn a:a --proxy-protocol", "--proxy-protocol true near as proxy_protocol=auto a connection that does not"),
    ("gunicorn --proxy-protocol off a:a", "--proxy-protocol off same as proxy_protocol=off"),
    ("uvicorn --host :: --port 9 a:a", "--host :: same as bind=[::]:9 --port 9 same as bind=[::]:9"),
    ("uvicorn --uds /a --port 9 a:a", "--uds /a same as bind=unix:/a --port 9 same APP"),
    ("uvicorn --workers 2 --reload a:a", "--workers 2 near ignored beside --reload"),
    ("daphne -p 9 -u /a a:a", "-p 9 same as bind=127.0.0.1:9,unix:/a"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "text"), EXPLAINED)
def test_explain_says_what_an_option_becomes(line: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(shlex.split(line), {}) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert text in out
    assert out.count("--workers") <= 1


@pytest.mark.parametrize(
    ("value", "status", "text"),
    [
        (
            "{'X-FORWARDED-PROTO': 'https'}",
            0,
            "near as forwarded_fields=x-forwarded-proto,script_name names may be in upper or lower case",
        ),
        (
            "{'X-Forwarded-Ssl': 'on', 'X-SCHEME': 'https'}",
            0,
            "near as forwarded_fields=x-forwarded-ssl,x-scheme,script_name",
        ),
        (
            "{'X-CLIENT-SCHEME': 'https', 'X-SCHEME': '%(h)s'}",
            1,
            "X-CLIENT-SCHEME: https, X-SCHEME: %(h)s changes no scheme; what can is x-forwarded-proto: https;",
        ),
        ("{}", 0, "near as forwarded_fields=script_name"),
    ],
)
def test_explain_secure_scheme_headers(
    place: Path, value: str, status: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    conf(place, f"secure_scheme_headers = {value}")
    assert explain(["gunicorn", "a:a"], {}) == status
    assert text in " ".join(capsys.readouterr().out.split())


def test_explain_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(["--json", "uvicorn", "--ssl-keyfile-password", "hunter2", "--ssl-certfile", "c", "a:a"], {}) == 0
    text = capsys.readouterr().out
    assert "hunter2" not in text
    found = json.loads(text)
    assert (found["server"], found["status"]) == ("uvicorn", 0)
    assert {"option", "value", "fate", "becomes", "remark"} == found["options"][0].keys()


@pytest.mark.parametrize("line", [line for line, _ in LINES])
def test_the_file_that_explain_writes_does_the_same(place: Path, line: str) -> None:
    translation = translate(line)
    (place / "bridge.toml").write_text(toml(dialect(line.split(maxsplit=1)[0]), translation, {}), encoding="utf-8")
    assert resolve(read_file("bridge.toml")) == config_of(translation, {})


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_the_usage_of_explain(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(words, {}) == (0 if words else 2)
    assert "SERVER is one of gunicorn" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"), [(["apache"], "apache: bridge knows"), (["--json", "--toml", "x"], "choose one")]
)
def test_explain_with_wrong_words(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        explain(words, {})
