"""Runs a part of Tornado's test suite with bridge in place of Tornado's server; started by ``test_suite``.

    python -m tests.tornado_suite.run server|fork|modules

Tornado's tests are imported from the installed package and run unchanged. What differs is what they find under
Tornado's names: in "server" HTTPServer, put there by ``bridge.adapters.tornado.install``; in "fork" the same in the
programs that the tests start; in "modules" the classes and functions that a test module is about. A JSON object of
results goes to standard output.
"""

import contextlib
import importlib
import io
import json
import logging
import os
import re
import signal
import sys
import tempfile
import unittest
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import tornado.httpclient
import tornado.simple_httpclient
import tornado.tcpclient
import tornado.testing
import tornado.websocket
import tornado.wsgi

import bridge.core.http1connection
import bridge.core.httpserver
import bridge.core.httputil
import bridge.core.iostream
import bridge.core.netutil
import bridge.core.process
import bridge.core.tcpserver
from bridge.adapters.tornado import install
from tests.support import ROOT

SECONDS_A_TEST = 60

# Test modules whose AsyncHTTPTestCases start a server, and single test cases beside those that do.
SERVER_MODULES = (
    *("asyncio", "auth", "circlerefs", "gen", "httpclient", "httpserver", "iostream", "routing", "security_corpus"),
    *("simple_httpclient", "testing", "web", "websocket", "wsgi"),
)
SERVER_CASES = re.compile(
    r"\.CircleRefsTest\.\w*(handler|streaming_callback)|\.SyncHTTPClientTest\.|\.BadSSLOptionsTest\."
    r"|\.UnixSocketTest(Abstract|File)\.|\.SecurityCorpusTest\."
)
FORK = {"process": r"\.ProcessTest\.", "tcpserver": r"\.TestMultiprocess\."}

# Test module -> which of its cases, and what it is to find: module of Tornado -> names.
_HTTPUTIL = (
    *("HTTPFile", "HTTPHeaders", "HTTPInputError", "HTTPServerRequest", "RequestStartLine", "format_timestamp"),
    *("parse_body_arguments", "parse_cookie", "parse_multipart_form_data", "parse_request_start_line"),
    *("parse_response_start_line", "qs_to_qsl", "url_concat", "ParseMultipartConfig"),
)
_LISTENING = {"tcpserver": ("TCPServer",), "netutil": ("bind_sockets",)}
MODULES: dict[str, tuple[str, dict[str, tuple[str, ...]]]] = {
    # Its last test is about a private function of Tornado's, for which bridge has no counterpart.
    "httputil": (r"(?!.*test_parse_header_memory)", {"httputil": _HTTPUTIL}),
    "property": (r".*\.(HTTPHeaders|StartLine|Cookie|Multipart)PropertyTest\.", {"httputil": _HTTPUTIL}),
    "http1connection": (
        "",
        {"http1connection": ("HTTP1Connection",), "httputil": ("HTTPMessageDelegate",), "iostream": ("IOStream",)},
    ),
    "tcpserver": (r".*\.TCPServerTest\.", _LISTENING),
    "concurrent": (r".*CapClientTest\.", _LISTENING),
    "iostream": (r".*\.WaitForHandshakeTest\.", _LISTENING),
    "simple_httpclient": (r".*\.TLSHandshakeTimeoutTestCase\.", _LISTENING),
    "tcpclient": (r".*\.TCPClientTest\.", _LISTENING),
    "netutil": (r".*\.(IsValidIPTest|TestPortAllocation)\.", {"netutil": ("bind_sockets", "is_valid_ip")}),
}


class Results(unittest.TestResult):
    """Collects by id: what failed, with the first text of it, and what was skipped."""

    def __init__(self) -> None:
        super().__init__()
        self.failed: dict[str, str] = {}
        self.left_out: list[str] = []

    def addError(self, test: Any, err: Any) -> None:
        self.failed.setdefault(test.id(), self._exc_info_to_string(err, test)[-2000:])  # type: ignore[attr-defined]

    addFailure = addError

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        if err is not None:
            self.addError(test, err)

    def addSkip(self, test: Any, reason: str) -> None:
        self.left_out.append(test.id())


class ToTornado(logging.Handler):
    """Gives the records of bridge's loggers to Tornado's, which the tests watch."""

    NAMES: ClassVar = {"access": "tornado.access", "application": "tornado.application"}

    def emit(self, record: logging.LogRecord) -> None:
        logger = logging.getLogger(self.NAMES.get(record.name.rpartition(".")[2], "tornado.general"))
        if logger.isEnabledFor(record.levelno):
            logger.handle(logging.makeLogRecord({**record.__dict__, "name": logger.name}))


def cases(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from cases(item)
        else:
            yield item


def load(name: str) -> Iterator[unittest.TestCase]:
    """Yield the test cases that the module defines itself."""
    module = importlib.import_module(f"tornado.test.{name}_test")
    for test in cases(unittest.defaultTestLoader.loadTestsFromModule(module)):
        # Tornado wraps the bases of its test cases in a class of this name, so that they do not run.
        abstract = type(test).__name__ == "AbstractBaseWrapper"
        if type(test).__module__ == module.__name__ and not abstract:
            yield test


def server_tests() -> list[unittest.TestCase]:
    install()
    constructed = tornado.httpserver.HTTPServer
    assert constructed is tornado.testing.HTTPServer is bridge.core.httpserver.HTTPServer
    own = re.compile(r"\.(CircleRefsTest|SyncHTTPClientTest|BadSSLOptionsTest)\.")
    return [
        test
        for name in SERVER_MODULES
        for test in load(name)
        if SERVER_CASES.search(test.id())
        or (isinstance(test, tornado.testing.AsyncHTTPTestCase) and own.search(test.id()) is None)
    ]


def fork_tests() -> list[unittest.TestCase]:
    return [test for name, wanted in FORK.items() for test in load(name) if re.search(wanted, test.id())]


def module_tests() -> list[unittest.TestCase]:
    tests = []
    for name, (wanted, replaced) in MODULES.items():
        saved = []
        for source, attributes in replaced.items():
            original = importlib.import_module(f"tornado.{source}")
            ours = importlib.import_module(f"bridge.core.{source}")
            for attribute in attributes:
                saved.append((original, attribute, getattr(original, attribute)))
                setattr(original, attribute, getattr(ours, attribute))
        tests += [test for test in load(name) if re.match(wanted, test.id())]
        for original, attribute, value in saved:
            setattr(original, attribute, value)
    return tests


IN_CHILDREN = """
import sys
sys.path.insert(0, {root!r})
from tests.tornado_suite.run import forward_logs
forward_logs()
import tornado.netutil, tornado.process, tornado.tcpserver
import bridge.core.netutil, bridge.core.process, bridge.core.tcpserver
from bridge.adapters.tornado import install
install()
tornado.netutil.bind_sockets = bridge.core.netutil.bind_sockets
tornado.process.fork_processes = bridge.core.process.fork_processes
tornado.process.task_id = bridge.core.process.task_id
tornado.tcpserver.TCPServer = bridge.core.tcpserver.TCPServer
"""


@contextlib.contextmanager
def children() -> Iterator[None]:
    """Let interpreters that are started meanwhile find bridge under Tornado's names."""
    before = os.environ.get("PYTHONPATH")
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "sitecustomize.py").write_text(IN_CHILDREN.format(root=str(ROOT)), encoding="utf-8")
        os.environ["PYTHONPATH"] = os.pathsep.join([directory, *([before] if before else [])])
        try:
            yield
        finally:
            if before is None:
                del os.environ["PYTHONPATH"]
            else:
                os.environ["PYTHONPATH"] = before


def too_long(*_: object) -> None:
    raise TimeoutError(f"a test took longer than {SECONDS_A_TEST} seconds")


def forward_logs() -> None:
    """Let Tornado's loggers have what bridge logs."""
    logger = logging.getLogger("bridge")
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    logger.addHandler(ToTornado())


def main(part: str) -> None:
    forward_logs()
    logging.getLogger().addHandler(logging.NullHandler())
    logging.getLogger("tornado.access").setLevel(logging.CRITICAL)
    tests = {"server": server_tests, "fork": fork_tests, "modules": module_tests}[part]()
    results = Results()
    signal.signal(signal.SIGALRM, too_long)
    # Tornado's tests warn, and write to standard error, on purpose.
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()), children():
        warnings.simplefilter("ignore")
        for test in tests:
            signal.alarm(SECONDS_A_TEST)
            unittest.TestSuite([test]).run(results)
        signal.alarm(0)
    json.dump(
        {
            "tornado": tornado.version,
            "run": results.testsRun,
            "skipped": len(results.left_out),
            "failed": results.failed,
            "ids": [test.id() for test in tests],
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main(sys.argv[1])
