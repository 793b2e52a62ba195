"""Published Tornado applications, unchanged but for the HTTPServer that they start, used as browsers use them.

They are not among the packages that the other tests need: what is not installed is skipped.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.test_examples import Running, started

pytestmark = pytest.mark.slow

HERE = Path(__file__).resolve().parent
LIMIT = 10.0  # seconds


def needs(*modules: str) -> pytest.MarkDecorator:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} not installed")


# ---------------------------------------------------------------------- Bokeh


class BokehSession:
    """What BokehJS does in a page: messages of several frames, over the WebSocket of the page's session."""

    def __init__(self, client: ClientConnection) -> None:
        self.client = client

    def send(self, kind: str, **content: Any) -> None:
        for part in ({"msgid": kind, "msgtype": kind}, {}, content):
            self.client.send(json.dumps(part))

    def receive(self) -> tuple[str, dict[str, Any], list[bytes]]:
        """Return kind, content and binary buffers of the next message."""
        header, _, content = [json.loads(self.client.recv(timeout=LIMIT)) for _ in range(3)]
        buffers = []
        for _ in range(header.get("num_buffers", 0)):
            self.client.recv(timeout=LIMIT)
            buffer = self.client.recv(timeout=LIMIT)
            assert isinstance(buffer, bytes)
            buffers.append(buffer)
        return header["msgtype"], content, buffers


@contextmanager
def bokeh_session(running: Running) -> Iterator[BokehSession]:
    """Open the page, and the WebSocket that it names."""
    status, fields, page = running.ask("GET", "/sine")
    assert (status, fields["content-type"].partition(";")[0]) == (200, "text/html")
    token = re.search(r'"token":"([^"]+)"', page.decode())
    assert token is not None
    protocols: Any = ["bokeh", token[1]]
    origin: Any = f"http://127.0.0.1:{running.port}"
    with connect(
        f"ws://127.0.0.1:{running.port}/sine/ws", subprotocols=protocols, origin=origin, proxy=None, max_size=None
    ) as client:
        assert client.subprotocol == "bokeh"
        session = BokehSession(client)
        assert session.receive()[0] == "ACK"
        yield session


@needs("bokeh")
def test_bokeh() -> None:
    with started(str(HERE / "bokeh_server.py")) as running:
        status, fields, script = running.ask("GET", "/static/js/bokeh.min.js")
        assert (status, len(script)) == (200, int(fields["content-length"]))
        assert running.ask("GET", "/static/js/bokeh.min.js", headers={"If-None-Match": fields["etag"]})[0] == 304
        assert running.ask("GET", "/other")[0] == 404
        with bokeh_session(running) as one, bokeh_session(running) as other:
            for session, values in ((one, (5, 200_000, 1)), (other, (7,))):
                session.send("PULL-DOC-REQ")
                kind, content, _ = session.receive()
                assert kind == "PULL-DOC-REPLY"
                slider = next(iter(content["doc"]["roots"]))["attributes"]["children"][0]
                assert (slider["name"], slider["attributes"]["value"]) == ("Slider", 1)
                for value in values:
                    change = {"kind": "ModelChanged", "model": {"id": slider["id"]}, "attr": "value", "new": value}
                    session.send("PATCH-DOC", events=[change])
                    answers = sorted((session.receive(), session.receive()), key=lambda answer: answer[0])
                    assert [kind for kind, _, _ in answers] == ["OK", "PATCH-DOC"]
                    # The points that the server has worked out, as two arrays of binary numbers.
                    assert [len(buffer) for buffer in answers[1][2]] == [8 * value, 8 * value]


# ---------------------------------------------------------------------- Jupyter


@needs("jupyter_server", "jupyter_server_terminals", "ipykernel")
def test_jupyter_server_with_a_kernel_and_a_terminal(tmp_path: Path) -> None:
    with started(str(HERE / "jupyter_app.py"), str(tmp_path)) as running:
        token = {"Authorization": "token secret"}

        def api(method: str, path: str, content: Any = None) -> Any:
            body = b"" if content is None else json.dumps(content).encode()
            status, _, answer = running.ask(method, f"/api/{path}", body, token)
            assert status in {200, 201, 204}, answer
            return json.loads(answer) if answer else None

        assert running.ask("GET", "/api/kernels")[0] == 403
        text = "line\n" * 100_000
        api("PUT", "contents/notes.txt", {"type": "file", "format": "text", "content": text})
        assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == text
        assert api("GET", "contents/notes.txt?content=1")["content"] == text
        files = {**token, "Range": "bytes=2-6"}
        status, fields, content = running.ask("GET", "/files/notes.txt", headers=files)
        assert (status, content) in {(206, b"ne\nli"), (200, text.encode())}
        assert int(fields["content-length"]) == len(content)
        kernel = api("POST", "kernels", {"name": "python3"})["id"]
        with connect(
            f"ws://127.0.0.1:{running.port}/api/kernels/{kernel}/channels",
            additional_headers=token,
            proxy=None,
            max_size=None,
        ) as client:
            for number in range(3):
                code = f"print({number} * 7, 'x' * 1_000_000)"
                client.send(json.dumps(execute_request(code, f"request-{number}")))
                printed = ""
                while True:
                    message = json.loads(client.recv(timeout=30))
                    if message["parent_header"].get("msg_id") != f"request-{number}":
                        continue
                    if message["msg_type"] == "stream":
                        printed += message["content"]["text"]
                    elif message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                        break
                assert printed == f"{number * 7} {'x' * 1_000_000}\n"
        api("DELETE", f"kernels/{kernel}")
        assert api("GET", "kernels") == []
        terminal = api("POST", "terminals", {})["name"]
        with connect(
            f"ws://127.0.0.1:{running.port}/terminals/websocket/{terminal}", additional_headers=token, proxy=None
        ) as client:
            client.send(json.dumps(["stdin", "echo 4$((1+1)); exit\r"]))
            shown = ""
            while (message := json.loads(client.recv(timeout=30)))[0] != "disconnect":
                shown += message[1] if message[0] == "stdout" else ""
            assert "42" in shown


def execute_request(code: str, name: str) -> dict[str, Any]:
    header = {"msg_id": name, "username": "", "session": "one", "msg_type": "execute_request", "version": "5.3"}
    content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
    return {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
