"""The table of settings, the values it takes, and where they come from."""

from __future__ import annotations

import re
import subprocess
import sys
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from bridge.config import GROUPS, SETTINGS, Config
from bridge.config import table as settings
from bridge.config.kinds import FileDescriptor, TCPAddress, UnixAddress
from bridge.config.reference import options_page, run_help
from bridge.config.settings import option
from bridge.config.sources import Given, from_command_line, from_environment, load, merge, resolve
from bridge.config.table import show
from bridge.errors import ConfigError
from tests.support import ROOT as REPOSITORY


def given(*argv: str, **environ: str) -> Config:
    return load(argv, environ)


# --- the table -------------------------------------------------------------------------------------------------------


def test_defaults_are_those_of_the_design() -> None:
    config = given()
    assert config == Config()
    assert (config.limit_request_line, config.limit_request_field_size, config.limit_request_head) == (
        8190,
        8190,
        65536,
    )
    assert (config.limit_request_fields, config.limit_request_body) == (100, "auto")
    assert (config.timeout_keep_alive, config.timeout_request_head, config.timeout_request_body) == (5, 10, 30)
    assert (config.timeout_write, config.timeout_tls_handshake, config.timeout_graceful_shutdown) == (60, 10, 30)
    assert config.timeout_request is config.limit_concurrency is config.limit_connections is None
    assert config.addresses == (TCPAddress("127.0.0.1", 8000),)
    assert config.proxy_headers is False
    assert (config.threads, config.threads_min, config.threads_idle, config.wsgi_queue) == (64, 1, 30, 1024)


def test_cpus_where_affinity_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    from bridge.config.process import usable_cpus

    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert usable_cpus() == 1


def test_every_spelling_and_variable_is_one_settings_own() -> None:
    spellings = [spelling for row in SETTINGS for spelling in row.spellings]
    variables = [name for row in SETTINGS for name in (*row.environment, *row.foreign)]
    assert len(spellings) == len(set(spellings))
    assert len(variables) == len(set(variables))
    assert not {"-p", "-t", "-u", "-k"} & set(spellings)  # they mean different things to different people


def test_every_row_has_a_group_and_a_sentence() -> None:
    for row in SETTINGS:
        assert row.group in GROUPS
        assert row.help
        assert not row.help.endswith(".")
        assert bool(row.kind.choices) == ("CHOICES" in row.help), row.name


SAMPLES = {
    "PERCENT": "85%", "TAGS": "env:prod", "SERVER": "localhost:8125",
    "TEXT": "words", "FILE": "a/file", "DIR": "a/dir", "HOST": "example.org", "PORT": "80", "ADDRESS": "a:1,unix:/x",
    "OCTAL": "600", "N": "7", "SIZE": "1k", "TIME": "2s", "PATH": "/p", "LIST": "10.0.0.1", "": "on",
    "FUNCTION": "m:f", "CERTS": "a=b,c", "MOUNT": "/a=m:app", "NAMES": "forwarded", "PATHS": "/a",
    "DIRS": "a/dir", "PATTERNS": "*.html", "NAME": "x-trace", "FILES": ".env",
    "FIELD": "A: b", "HOOK": "on_exit=m:f", "VARIABLE": "A=b", "VERSIONS": "h1,h2",
}  # fmt: skip


@pytest.mark.parametrize("row", SETTINGS, ids=lambda row: row.name)
def test_the_kind_makes_the_type_of_the_field(row: settings.Setting) -> None:
    wanted = typing.get_type_hints(Config)[row.name]
    text = row.kind.choices[0] if row.kind.choices else SAMPLES[row.kind.metavar]
    assert _is_a(row.kind.parse(text), wanted)
    assert _is_a(row.default, wanted)
    if row.kind.can_be_off:
        assert row.kind.parse("off") is None
        assert _is_a(None, wanted)


def _is_a(value: object, wanted: object) -> bool:
    if typing.get_origin(wanted) is tuple:
        return isinstance(value, tuple) and all(_is_a(item, typing.get_args(wanted)[0]) for item in value)
    if typing.get_origin(wanted) is typing.Literal:
        return value in typing.get_args(wanted)
    alternatives = typing.get_args(wanted)
    if alternatives:
        return any(_is_a(value, alternative) for alternative in alternatives)
    return type(value) is wanted


def test_config_is_frozen_and_keeps_the_password_to_itself() -> None:
    config = Config(ssl_certfile="c", ssl_keyfile_password="hunter2")
    assert "hunter2" not in repr(config)
    for change in (lambda: setattr(config, "port", 1), lambda: delattr(config, "ssl_certfile")):
        with pytest.raises(AttributeError, match="settings do not change: "):
            change()
    assert config.port == 8000


EVERYWHERE = TCPAddress("", 8000)
HERE = TCPAddress("127.0.0.1", 8000)


@pytest.mark.parametrize("debug", [True, False])
@pytest.mark.parametrize("anywhere", [True, False])
@pytest.mark.parametrize("bind", [(HERE,), (EVERYWHERE,), (HERE, EVERYWHERE), (UnixAddress("/a"),)], ids=str)
def test_debugging_is_for_this_machine_unless_somebody_wants_it(
    debug: bool, anywhere: bool, bind: tuple[typing.Any, ...]
) -> None:
    if debug and not anywhere and EVERYWHERE in bind:
        with pytest.raises(ConfigError, match=r"^--debug: :8000 is not on the loopback interface"):
            Config(debug=debug, debug_anywhere=anywhere, bind=bind)
    else:
        assert Config(debug=debug, debug_anywhere=anywhere, bind=bind).debug is debug


def test_configs_with_the_same_values_are_equal() -> None:
    assert Config() == Config(port=8000) != Config(port=8001)
    assert Config() != "x"
    assert len({Config(), Config(port=8000), Config(port=8001)}) == 2
    assert repr(Config(port=8001)).startswith("Config(")
    assert "port=8001" in repr(Config(port=8001))


def test_a_config_has_no_other_settings() -> None:
    with pytest.raises(TypeError, match="there is no setting 'prot'"):
        Config(prot=1)  # type: ignore[call-arg]


# --- values ----------------------------------------------------------------------------------------------------------

TAKEN: list[tuple[Sequence[str], str, object]] = [
    (["--port", "0"], "port", 0),
    (["--port=65535"], "port", 65535),
    (["--port", " 80 "], "port", 80),
    (["--limit-request-head", "64k"], "limit_request_head", 65536),
    (["--limit-request-head", "1M"], "limit_request_head", 1 << 20),
    (["--limit-request-body", "1GiB"], "limit_request_body", 1 << 30),
    (["--limit-request-body", "10 MB"], "limit_request_body", 10 << 20),
    (["--limit-request-body", "512b"], "limit_request_body", 512),
    (["--limit-request-body", "off"], "limit_request_body", None),
    (["--wsgi-buffer-requests", "OFF"], "wsgi_buffer_requests", None),
    (["--timeout-write", "30"], "timeout_write", 30.0),
    (["--timeout-write", "1.5s"], "timeout_write", 1.5),
    (["--timeout-write", "500ms"], "timeout_write", 0.5),
    (["--timeout-write", "5m"], "timeout_write", 300.0),
    (["--timeout-write", "2H"], "timeout_write", 7200.0),
    (["--timeout-write", "1d"], "timeout_write", 86400.0),
    (["--timeout-write", "off"], "timeout_write", None),
    (["--timeout-keep-alive", "0"], "timeout_keep_alive", 0.0),
    (["--timeout-graceful-shutdown", "0"], "timeout_graceful_shutdown", 0.0),
    (["--uds-permissions", "600"], "uds_permissions", 0o600),
    (["--uds-permissions", "0o660"], "uds_permissions", 0o660),
    (["--uds-permissions", "0666"], "uds_permissions", 0o666),
    (["--interface", "ASGI"], "interface", "asgi3"),
    (["--ssl-cert-reqs", "0"], "ssl_cert_reqs", "none"),
    (["--log-level", "warn"], "log_level", "warning"),
    (["--root-path", "/api/"], "root_path", "/api"),
    (["--root-path", "/"], "root_path", ""),
    (["--root-path", ""], "root_path", ""),
    (["--access-log"], "access_log", True),
    (["--no-access-log"], "access_log", False),
    (["--no-access-log", "--access-log"], "access_log", True),
    (["--factory"], "factory", True),
    (["--port", "1", "--port", "2"], "port", 2),
    (["--host", "[::1]"], "host", "::1"),
    (["--host", "*"], "host", ""),
    (["--forwarded-allow-ips", "10.0.0.1, 192.168.1.7/16,unix"], "forwarded_allow_ips",
     ("10.0.0.1", "192.168.0.0/16", "unix")),
    (["--forwarded-allow-ips", "*"], "forwarded_allow_ips", ("*",)),
    (["--forwarded-allow-ips", "::1", "--forwarded-allow-ips", "fd00::/8"], "forwarded_allow_ips",
     ("::1", "fd00::/8")),
    (["-b", "127.0.0.1:1"], "bind", (TCPAddress("127.0.0.1", 1),)),
    (["-b127.0.0.1:1", "--bind", "[::1]:2,:3"], "bind",
     (TCPAddress("127.0.0.1", 1), TCPAddress("::1", 2), TCPAddress("", 3))),
    (["--bind", "*:0"], "bind", (TCPAddress("", 0),)),
    (["--bind", "unix:run/a.sock"], "bind", (UnixAddress("run/a.sock"),)),
    (["--bind", "unix:///run/a.sock"], "bind", (UnixAddress("/run/a.sock"),)),
    (["--bind", "fd://3"], "bind", (FileDescriptor(3),)),
    (["--keep-alive", "2"], "timeout_keep_alive", 2.0),
    (["--graceful-timeout", "2"], "timeout_graceful_shutdown", 2.0),
    (["--wsgi-threads", "2"], "threads", 2),
    (["--limit_request_line", "100"], "limit_request_line", 100),
    (["--limit-request-field_size=100"], "limit_request_field_size", 100),
    (["shop:app"], "target", "shop:app"),
    (["--port", "1", "shop:app"], "target", "shop:app"),
    (["--factory", "shop:app", "--port", "1"], "target", "shop:app"),
    (["--", "-odd:app"], "target", "-odd:app"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("argv", "name", "value"), TAKEN, ids=lambda part: " ".join(part) if type(part) is list else ""
)
def test_takes(argv: Sequence[str], name: str, value: object) -> None:
    taken = getattr(load(argv, {}), name)
    assert taken == value
    assert type(taken) is type(value)


WHOLE = "a whole number of at least 1"
SIZE = "a size above 0 such as 8190, 64k or 1GiB"
TIME = "a time above 0 such as 30, 30s or 5m"
ADDRESS = "HOST:PORT, [IPV6]:PORT, :PORT, unix:PATH, fd://N or systemd[:NAME]"
HOST = "a host name or an IP address (the port has an option of its own)"

BAD_PORTS = ("65536", "-1", "+1", "1_0", "0x1", "٣", "8000x", "")
BAD_ADDRESSES = ("8000", "a:", "a:b:1", "::1:80", "http://a:1", "fd://x", "unix:", "a:1,,b:2", "")

NOT_TAKEN = [
    *[("--port", text, "a whole number from 0 to 65535") for text in BAD_PORTS],
    *[("--threads", text, "a whole number from 1 to 10000") for text in ("0", "1.5", "ten", "10001")],
    *[("--limit-connections", text, f"{WHOLE}, or off") for text in ("0", "-1", "of")],
    ("--wsgi-queue", "off", WHOLE),
    *[("--limit-request-line", text, SIZE) for text in ("0", "0k", "1.5k", "64ib", "k", "1T", "off", "1e3", "K")],
    ("--limit-request-body", "-1", f"{SIZE}, or off"),
    *[("--timeout-write", text, f"{TIME}, or off") for text in ("0", "-5", "5 weeks", "nan", "inf", "1e3", ".5", "s")],
    ("--timeout-tls-handshake", "off", TIME),
    ("--timeout-keep-alive", "off", "0 or a time such as 30, 30s or 5m"),
    ("--interface", "rsgi", "one of auto, asgi3, asgi2, wsgi, tornado, delegate, callable"),
    ("--ssl-cert-reqs", "3", "one of none, optional, required"),
    *[("--uds-permissions", text, "a file mode of three octal digits such as 660") for text in ("888", "66", "01777")],
    *[("--root-path", text, "empty or a path that begins with /") for text in ("api", "/a?b", "/a b", "/a\nb")],
    *[("--host", text, HOST) for text in ("a:1", "http://a", "[a]", "a b", "1::2::3", "")],
    *[("--bind", text, ADDRESS) for text in BAD_ADDRESSES],
    *[("--uds", text, "a path") for text in ("", "a\0b")],
    *[
        ("--forwarded-allow-ips", text, "a list of IP addresses, networks such as 10.0.0.0/8, unix, or *")
        for text in ("localhost", "10.0.0.0/33", "", "10.0.0.1 10.0.0.2")
    ],
    ("--request-id", "yes", "one of off, new, proxy, any, traceparent"),
    ("--request-id-header", "x request", "the name of a field such as X-Request-Id"),
    ("--request-id-header", "x_request_id", "the name of a field such as X-Request-Id"),
    ("--request-id-header", "Content-Length", "the name of a field such as X-Request-Id"),
    ("--request-id-header", "x" * 65, "the name of a field such as X-Request-Id"),
]  # fmt: skip


@pytest.mark.parametrize(("option", "text", "allowed"), NOT_TAKEN)
def test_refuses(option: str, text: str, allowed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        given(f"{option}={text}")
    assert str(caught.value) == f"{option}: {text!r} is not {allowed}"
    assert "\n" not in str(caught.value)


def test_a_long_value_is_cut() -> None:
    with pytest.raises(ConfigError, match=r"^--port: '9{77}\.\.\.' is not a whole number"):
        given("--port", "9" * 5000)


def test_a_password_is_not_repeated() -> None:
    with pytest.raises(ConfigError, match=r"^BRIDGE_SSL_KEYFILE_PASSWORD: the value is not printable text$"):
        given(BRIDGE_SSL_KEYFILE_PASSWORD="hunter\n2")


@pytest.mark.parametrize("text", ["on", "true", "YES", "1"])
def test_switches_in_the_environment(text: str) -> None:
    assert given(BRIDGE_FACTORY=text).factory is True


@pytest.mark.parametrize("text", ["off", "False", "no", "0"])
def test_switches_that_are_off_in_the_environment(text: str) -> None:
    assert given(BRIDGE_ACCESS_LOG=text).access_log is False


def test_a_switch_that_is_neither() -> None:
    with pytest.raises(ConfigError, match=r"^BRIDGE_FACTORY: 'maybe' is not on or off$"):
        given(BRIDGE_FACTORY="maybe")


# --- the command line ------------------------------------------------------------------------------------------------

COMMAND_LINE_ERRORS = [
    (["--prot", "1"], "--prot: there is no such option; did you mean --port?"),
    (["--prot=1"], "--prot: there is no such option; did you mean --port?"),
    (["--no-acces-log"], "--no-acces-log: there is no such option; did you mean --no-access-log?"),
    (["--keyfle", "x"], "--keyfle: there is no such option; did you mean --ssl-keyfile?"),
    (["--no-cal"], "--no-cal: there is no such option; did you mean --no-factory?"),
    (["--thread", "1"], "--thread: there is no such option; did you mean --threads?"),
    (["--qqq"], "--qqq: there is no such option; `bridge run --help` lists what there is"),
    (["-x", "1"], "-x: there is no such option; `bridge run --help` lists what there is"),
    (["-p", "1"], "-p: means the port in some servers and the pid file in others; write --port"),
    (["-p8000"], "-p: means the port in some servers and the pid file in others; write --port"),
    (
        ["--timeout=30"],
        "--timeout: means a worker's heartbeat in some servers and a request's deadline in others;"
        " write --timeout-request",
    ),
    (["a:app", "--port"], "--port: needs a value: a whole number from 0 to 65535"),
    (["-b"], f"-b: needs a value: {ADDRESS}"),
    (["--keyfile", "--port", "1"], "--keyfile: needs a value: a path"),
    (["--access-log=off"], "--access-log: takes no value; --no-... is the opposite"),
    (["a:app", "b:app"], "TARGET: 'a:app' and 'b:app': only one application can be served"),
    (["a:app", "--", "b:app"], "TARGET: 'a:app' and 'b:app': only one application can be served"),
    (["--keep-alive", "x"], "--keep-alive: 'x' is not 0 or a time such as 30, 30s or 5m"),
    (["--bind", "a:1", "--port", "2"], "--port: cannot be used beside --bind, which already says where to listen"),
    (["--host", "a", "--uds", "b"], "--host: cannot be used beside --uds, which already says where to listen"),
]


@pytest.mark.parametrize(
    ("argv", "message"), COMMAND_LINE_ERRORS, ids=lambda part: " ".join(part) if type(part) is list else ""
)
def test_command_line_errors(argv: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        load(argv, {})


@pytest.mark.parametrize("row", SETTINGS, ids=lambda row: row.name)
def test_every_spelling_reaches_its_setting(row: settings.Setting) -> None:
    if row.positional:
        return
    text = row.kind.choices[0] if row.kind.choices else SAMPLES[row.kind.metavar]
    for spelling in row.spellings:
        layer = from_command_line([spelling] if row.is_switch else [spelling, text])
        expected = ("off" if spelling.startswith("--no-") else "on") if row.is_switch else text
        assert layer == {row.name: Given(expected, spelling)}


# --- the environment and the order of sources ------------------------------------------------------------------------


def test_every_variable_reaches_its_setting() -> None:
    for row in SETTINGS:
        for name in row.environment:
            assert from_environment({name: "x"}) == [{}, {row.name: Given("x", name)}]


def test_the_canonical_variable_wins_over_an_alias() -> None:
    assert given(BRIDGE_WSGI_THREADS="2", BRIDGE_THREADS="3").threads == 3


def test_empty_and_unknown_variables_are_left_alone() -> None:
    assert given(BRIDGE_PORT="", BRIDGE_SERVICE_HOST="10.0.0.1", BRIDGE_PROT="1", HOST="a") == Config()


def test_a_wrong_variable_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^BRIDGE_PORT: 'tcp://10.0.0.1:80' is not a whole number from 0 to 65535$"):
        given(BRIDGE_PORT="tcp://10.0.0.1:80")


def test_a_good_option_overrides_a_wrong_variable() -> None:
    assert given("--port", "1", BRIDGE_PORT="x").port == 1


ORDER: list[tuple[Sequence[str], Mapping[str, str], list[str]]] = [
    ([], {"BRIDGE_PORT": "1"}, ["127.0.0.1:1"]),
    (["--port", "2"], {"BRIDGE_PORT": "1"}, ["127.0.0.1:2"]),
    (["--port", "2"], {"BRIDGE_HOST": "a"}, ["a:2"]),
    (["--port", "2"], {"BRIDGE_BIND": "a:1"}, ["127.0.0.1:2"]),
    (["--bind", "b:2"], {"BRIDGE_BIND": "a:1"}, ["b:2"]),
    (["--bind", "b:2"], {"BRIDGE_HOST": "a", "BRIDGE_PORT": "1"}, ["b:2"]),
    (["--uds", "/x"], {"BRIDGE_BIND": "a:1", "PORT": "5"}, ["unix:/x"]),
    (["--bind", "b:2", "--uds", "/x", "--fd", "3"], {}, ["b:2", "unix:/x", "fd://3"]),
    ([], {"PORT": "5"}, [":5"]),
    ([], {"PORT": "5", "BRIDGE_PORT": "1"}, ["127.0.0.1:1"]),
    ([], {"PORT": "5", "BRIDGE_HOST": "a"}, ["a:5"]),
    ([], {"PORT": "5", "BRIDGE_UDS": "/x"}, ["unix:/x"]),
    (["--port", "2"], {"PORT": "5"}, ["127.0.0.1:2"]),
    (["--host", "::1"], {}, ["[::1]:8000"]),
]


@pytest.mark.parametrize(("argv", "environ", "expected"), ORDER)
def test_where_to_listen(argv: Sequence[str], environ: Mapping[str, str], expected: list[str]) -> None:
    assert [str(address) for address in load(argv, environ).addresses] == expected


def test_two_ways_to_listen_in_the_environment() -> None:
    with pytest.raises(ConfigError, match=r"^BRIDGE_PORT: cannot be used beside BRIDGE_BIND, which already says where"):
        given(BRIDGE_PORT="1", BRIDGE_BIND="a:1")


def test_naming_trusted_peers_switches_proxy_headers_on() -> None:
    assert given(FORWARDED_ALLOW_IPS="10.0.0.1").proxy_headers is True
    assert given("--no-proxy-headers", FORWARDED_ALLOW_IPS="10.0.0.1").proxy_headers is False
    assert given("--forwarded-allow-ips", "10.0.0.1", BRIDGE_PROXY_HEADERS="off").proxy_headers is False
    assert given("--proxy-headers").forwarded_allow_ips == ("127.0.0.1", "::1", "unix")


def test_merge_and_resolve_leave_their_layers_as_they_are() -> None:
    low, high = {"port": Given("1", "PORT")}, {"uds": Given("/x", "--uds")}
    merged = merge([low, high])
    resolve(low)
    assert (merged, low) == ({"uds": Given("/x", "--uds")}, {"port": Given("1", "PORT")})


# --- settings that contradict each other -----------------------------------------------------------------------------

CONTRADICTIONS = [
    (["--threads", "2", "--threads-min", "3"], "--threads-min: 3 is more than --threads, 2"),
    (["--limit-request-line", "65537"], "--limit-request-line: 65537 bytes are more than --limit-request-head, 65536"),
    (
        ["--limit-request-field-size", "9k", "--limit-request-head", "8k"],
        "--limit-request-field-size: 9216 bytes are more than --limit-request-head, 8192",
    ),
    (
        ["--ssl-certfile", "c", "--ssl-cert-reqs", "optional"],
        "--ssl-cert-reqs: 'optional' needs --ssl-ca-certs, which names the authorities to trust",
    ),
    (
        ["--forwarded-hops", "1"],
        "--forwarded-hops: needs --forwarded-allow-ips; name the proxies, or '*' if only they can reach the server",
    ),
    (["--keyfile", "k"], "--ssl-keyfile: needs --ssl-certfile, which switches TLS on"),
    (["--ssl-ca-certs", "k"], "--ssl-ca-certs: needs --ssl-certfile, which switches TLS on"),
    (["--ssl-ciphers", "k"], "--ssl-ciphers: needs --ssl-certfile, which switches TLS on"),
    (["--ssl-keyfile-password", "k"], "--ssl-keyfile-password: needs --ssl-certfile, which switches TLS on"),
]


@pytest.mark.parametrize(
    ("argv", "message"), CONTRADICTIONS, ids=lambda part: " ".join(part) if type(part) is list else ""
)
def test_contradictions(argv: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        load(argv, {})


def test_a_lower_limit_of_the_head_needs_no_other_option() -> None:
    assert given("--limit-request-head", "4k").limit_request_head == 4096


def test_tls_settings_that_fit() -> None:
    argv = ["--certfile", "c", "--keyfile", "k", "--ca-certs", "a", "--ssl-cert-reqs", "required", "--ciphers", "HIGH"]
    config = load(argv, {"BRIDGE_SSL_KEYFILE_PASSWORD": "p"})
    assert (config.ssl_certfile, config.ssl_keyfile, config.ssl_keyfile_password) == ("c", "k", "p")
    assert (config.ssl_ca_certs, config.ssl_cert_reqs, config.ssl_ciphers) == ("a", "required", "HIGH")


@pytest.mark.parametrize(
    ("argv", "unlimited", "limited"),
    [
        ([], None, 7),
        (["--limit-request-body", "1k"], 1024, 1024),
        (["--limit-request-body", "off"], None, None),
    ],
)
def test_body_limit(argv: list[str], unlimited: int | None, limited: int | None) -> None:
    config = load(argv, {})
    assert (config.body_limit(None), config.body_limit(7)) == (unlimited, limited)


def test_settings_are_named_as_on_the_command_line() -> None:
    assert option("app_dir") == "--app-dir"
    with pytest.raises(KeyError):
        option("no_such")


# --- in words --------------------------------------------------------------------------------------------------------


def test_the_page_of_options_is_fresh() -> None:
    page = (REPOSITORY / "docs" / "options.md").read_text()
    assert page == options_page(), "run: python -m bridge.config.reference > docs/options.md"


@pytest.mark.slow
def test_the_command_that_writes_the_page() -> None:
    command = [sys.executable, "-m", "bridge.config.reference"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=REPOSITORY, check=True)
    assert done.stdout == options_page()


@pytest.mark.parametrize("width", [20, 60, 80, 100, 300])
def test_help_shows_every_setting_within_the_width(width: int) -> None:
    text = run_help(width)
    assert "--check-config" in text
    text = text.partition("\nConfiguration:")[0] + "\nEvery option"
    options = text[text.index("Application:") : text.index("\nEvery option")].splitlines()
    assert max(map(len, options)) <= max(64, min(width, 110))
    shown = re.findall(r"^  (?:-\w, )?(?:--(?:\[no-\])?([a-z0-9-]+)|TARGET)", text, re.MULTILINE)
    assert [name for name in shown if name] == [row.option[2:] for row in SETTINGS if not row.positional]
    assert "keyfile, " not in text  # aliases stay out


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("port", "8000"), ("app_dir", "the current one"), ("uds", ""), ("limit_concurrency", "off"), ("factory", "off"),
        ("access_log", "on"), ("limit_request_head", "64 KiB"), ("limit_request_line", "8190"),
        ("timeout_write", "60 s"), ("timeout_request", "off"), ("bind", ""), ("log_level", "info"),
    ],
)  # fmt: skip
def test_defaults_in_words(name: str, expected: str) -> None:
    assert show(next(row for row in SETTINGS if row.name == name)) == expected


def test_large_sizes_in_words() -> None:
    row = next(row for row in SETTINGS if row.name == "limit_request_head")
    rows = [settings.Setting(row.name, size, row.group, row.kind, row.help) for size in (1 << 30, 3 << 20, 1023)]
    assert [show(row) for row in rows] == ["1 GiB", "3 MiB", "1023"]


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


FILE = """\
port = 9000
limit-request-body = "1M"
proxy_headers = true
uds_permissions = 0o600
timeout-keep-alive = 2.5
forwarded_allow_ips = ["10.0.0.0/8", "unix"]
certfile = "a.pem"
ssl_sni = { "b.example" = "b.pem,b.key" }
"""


def test_a_file_gives_settings(directory: Path) -> None:
    (directory / "bridge.toml").write_text(FILE)
    config = given("a:app")
    assert (config.port, config.limit_request_body, config.proxy_headers) == (9000, 1 << 20, True)
    assert (config.uds_permissions, config.timeout_keep_alive) == (0o600, 2.5)
    assert config.forwarded_allow_ips == ("10.0.0.0/8", "unix")
    assert config.ssl_certfile == "a.pem"
    assert config.ssl_sni == (("b.example", "b.pem", "b.key"),)


def test_sources_in_rising_order(directory: Path) -> None:
    (directory / "bridge.toml").write_text("port = 1\nbacklog = 10\nthreads = 4\n")
    config = given("a:app", "--threads", "6", BRIDGE_BACKLOG="20", BRIDGE_THREADS="5")
    assert (config.port, config.backlog, config.threads) == (1, 20, 6)


def test_the_table_of_a_project(directory: Path) -> None:
    (directory / "pyproject.toml").write_text('[project]\nname = "a"\n[tool.bridge]\nport = 3\n')
    assert given("a:app").port == 3
    (directory / "bridge.toml").write_text("port = 4\n")
    assert given("a:app").port == 4
    (directory / "other.toml").write_text("[bridge]\nport = 5\n")
    assert given("a:app", "--config", "other.toml").port == 5
    assert given("a:app", "-c", "other.toml", BRIDGE_CONFIG="bridge.toml").port == 5
    assert given("a:app", BRIDGE_CONFIG="other.toml").port == 5


def test_a_broken_project_file_is_not_ours(directory: Path) -> None:
    (directory / "pyproject.toml").write_text("not toml")
    assert given("a:app").port == 8000


BAD_FILES = [
    ("prot = 1", "bridge.toml: prot: there is no such setting; did you mean port?"),
    ("zzz = 1", "bridge.toml: zzz: there is no such setting"),
    ("port = 'x'", "bridge.toml: port: 'x' is not a whole number from 0 to 65535"),
    ("port = true", "bridge.toml: port: 'on' is not a whole number from 0 to 65535"),
    ("port = [1]", "bridge.toml: port: list is not a whole number from 0 to 65535"),
    ("certfile = 'a'\nssl_certfile = 'b'", "bridge.toml: ssl_certfile: means the same as certfile"),
    ("app_dir = { a = 'b' }", "bridge.toml: app_dir: dict is not a path"),
    ("bind = { a = 'b' }", "bridge.toml: bind: 'a=b' is not "),
    ("bind = 2026-01-31", "bridge.toml: bind: date is not "),
    ("port = 2026-01-31", "bridge.toml: port: date is not "),
    ("port = 1\nbind = ':2'", "bridge.toml: port: cannot be used beside bridge.toml: bind, "),
    ("port", "bridge.toml: Expected '='"),
]


@pytest.mark.parametrize(("text", "message"), BAD_FILES)
def test_faults_in_files(directory: Path, text: str, message: str) -> None:
    (directory / "bridge.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        given("a:app")
    assert str(caught.value).startswith(message)


def test_a_file_that_is_not_there(directory: Path) -> None:
    with pytest.raises(ConfigError, match=r"^none.toml: No such file or directory$"):
        given("a:app", "--config", "none.toml")
    with pytest.raises(ConfigError, match=r"^--config: needs a value"):
        given("a:app", "--config")


def test_options_of_a_program() -> None:
    from bridge.config.files import from_options

    options = from_options(
        {"port": 1, "timeout_write": 5, "bind": "unix:/a", "limit-request-body": "1k", "reload_dir": ["a"]}
    )
    assert options == {
        "port": 1,
        "timeout_write": 5.0,
        "bind": (UnixAddress("/a"),),
        "limit_request_body": 1024,
        "reload_dir": ("a",),
    }
    with pytest.raises(ConfigError, match=r"^prot: there is no such setting; did you mean port"):
        from_options({"prot": 1})
    with pytest.raises(ConfigError, match=r"^port: 'x' is not a whole number"):
        from_options({"port": "x"})


def test_printed_settings_are_a_file_of_settings(directory: Path) -> None:
    from bridge.config.reference import resolved
    from bridge.config.sources import load_layer

    text = resolved(load_layer(["a:app", "--port", "7", "--ssl-certfile", "c"], {"BRIDGE_SSL_KEYFILE_PASSWORD": "x9"}))
    assert 'port = "7"  # --port\n' in text
    assert 'target = "a:app"  # TARGET\n' in text
    assert "backlog = 2048  # default\n" in text
    assert 'ssl_keyfile_password = "..."  # BRIDGE_SSL_KEYFILE_PASSWORD\n' in text
    assert "x9" not in text
    assert "# forwarded_allow_ips is not given: nobody" in text
    (directory / "bridge.toml").write_text(text)
    again = given()
    assert (again.port, again.target, again.ssl_certfile) == (7, "a:app", "c")
    assert again.access_logformat == Config().access_logformat
