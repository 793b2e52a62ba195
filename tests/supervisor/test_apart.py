"""A master beside a program that has imported parts of the application itself."""

from __future__ import annotations

import os
import pickle
import re
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bridge.config import Config
from bridge.config.sources import load
from bridge.errors import ConfigError
from bridge.supervisor import apart
from tests.support import ROOT
from tests.support.running import Running, get

PROGRAM = """\
import parts

async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": parts.TEXT})

if __name__ == "__main__":
    HOW
    print("the program goes on")
"""
HOW = {
    "uvicorn-reload": "import uvicorn; uvicorn.run('program:app', port=0, reload=True, reload_delay=0.05)",
    "uvicorn-workers": "import uvicorn; uvicorn.run('program:app', port=0, workers=2)",
    "bridge-reload": "import bridge; bridge.run('program:app', port=0, reload=True, reload_delay=0.05)",
}


@pytest.mark.slow
@pytest.mark.parametrize("how", HOW)
def test_new_code_comes_although_the_program_has_imported_the_old(how: str, tmp_path: Path) -> None:
    if how.endswith("reload"):
        pytest.importorskip("watchfiles", reason="the extra `reload` is not installed")
    (tmp_path / "program.py").write_text(PROGRAM.replace("HOW", HOW[how]))
    parts = tmp_path / "parts.py"
    parts.write_text("TEXT = b'old'\n")
    command = [sys.executable, "-B", "-m", "bridge", "exec", "python", "program.py"]
    environ = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    with Running(command=command, cwd=tmp_path, environ=environ) as server:
        address = server.address()
        assert get(address)[2] == b"old"
        parts.write_text("TEXT = b'new and longer'\n")
        if how == "uvicorn-workers":
            server.signal("SIGHUP")
        server.messages.wait("Reloaded: ")
        assert get(address)[2] == b"new and longer"
        os.killpg(server.pid, signal.SIGINT)  # as a terminal does
        assert server.end("") == 0
        assert "the program goes on" in server.output.text
        assert "at once" not in server.messages.text
        assert "Traceback" not in server.messages.text


@pytest.mark.slow
def test_the_end_of_the_program_stops_the_master(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM.replace("HOW", HOW["uvicorn-workers"]))
    (tmp_path / "parts.py").write_text("TEXT = b''\n")
    command = [sys.executable, "-m", "bridge", "exec", "python", "program.py"]
    with Running(command=command, cwd=tmp_path) as server:
        server.address()
        server.end_of_first("SIGKILL")
        server.messages.wait("The program that has started the server has ended")
        server.messages.join()  # no process holds the stream any more
        assert len(re.findall(r"Worker \d .* ended with status 0", server.messages.text)) == 2


def test_what_cannot_be_sent_is_named() -> None:
    values: dict[str, Any] = {"target": "a:b", "ssl_context_factory": lambda: None}
    config = Config(**values)
    with pytest.raises(ConfigError, match=r"cannot be sent to another process: .*lambda"):
        apart.run_apart(config)


def test_settings_are_the_same_on_the_other_side() -> None:
    config = load(["a:b", "--workers", "2", "--bind", "127.0.0.1:0", "--mount", "/x=c:d"], {})
    values: dict[str, Any] = {name: getattr(config, name) for name in config.rows}
    assert Config(**pickle.loads(pickle.dumps(values))) == config


@pytest.mark.parametrize(
    ("name", "there", "found"),
    [("program.py", True, True), ("program.py", False, False), ("program.pyz", True, False), (None, False, False)],
    ids=["a script", "a script that is gone", "no script", "no file"],
)
def test_the_programs_main_module_is_named_only_if_it_can_be_imported(
    name: str | None, there: bool, found: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = None if name is None else str(tmp_path / name)
    if there:
        Path(str(file)).write_text("")
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__spec__=None, __file__=file))  # type: ignore[arg-type]
    assert apart._main() == (file if found else "")


@pytest.mark.parametrize(
    ("name", "found"), [("shop.serve", "shop.serve"), ("shop.__main__", ""), ("__main__", "")], ids=str
)
def test_a_program_that_is_run_as_a_module(name: str, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = SimpleNamespace(name=name)
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__spec__=spec, __file__="x.py"))  # type: ignore[arg-type]
    assert apart._main() == found
