"""The vectors and the prober beside the repository, against the application that comes with them."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from bridge.adapters.asgi import ASGIDelegate
from bridge.adapters.wsgi import WSGIDelegate
from tests.support import module_of
from tests.support.loops import run_on
from tests.support.serving import address_of, serving

WIRE = Path(__file__).resolve().parents[3] / "shared" / "wire"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not WIRE.joinpath("probe.py").exists(), reason="there is no ../shared/wire/probe.py"),
]

# ASGI hands every field to the application as it came; a Proxy field harms only who makes HTTP_PROXY of it.
KNOWN = {"asgi": {"environ-httpoxy"}, "wsgi": set()}


@pytest.mark.parametrize(("kind", "interface"), [("asyncio", "asgi"), ("uvloop", "wsgi")])
def test_the_probe_finds_nothing(kind: str, interface: str, tmp_path: Path) -> None:
    app = module_of(WIRE / "probe_app.py")
    report = tmp_path / "report.json"

    async def main() -> None:
        delegate: Any = ASGIDelegate(app.asgi) if interface == "asgi" else WSGIDelegate(app.wsgi)
        async with serving(delegate, raises=Exception) as server:  # the application breaks the rules on purpose
            host, port = address_of(server)
            arguments = [f"{host}:{port}", "--skip", "ws,wshs,h2", "--jobs", "64", "--json", str(report)]
            process = await asyncio.create_subprocess_exec(
                sys.executable, str(WIRE / "probe.py"), *arguments, stdout=asyncio.subprocess.PIPE
            )
            try:
                async with asyncio.timeout(120):
                    output, _ = await process.communicate()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
            print(output.decode("utf-8", "replace"))
        if interface == "wsgi":
            await delegate.close(1.0)

    run_on(kind, main)
    result = json.loads(report.read_text())
    assert result["passed"] > 200
    assert set(result["failed"]) <= KNOWN[interface], result["failed"]
