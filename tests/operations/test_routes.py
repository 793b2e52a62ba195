"""What is answered to which request, and that a refusal says what is allowed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from bridge.operations.health import Condition
from bridge.operations.messages import Answer, Request, Respond, as_json
from bridge.operations.routes import Refused, Routes


class Subject:
    """A server."""

    application = None  # it has no metrics of its own

    def __init__(self) -> None:
        self.holds = True
        self.done: list[Mapping[str, str]] = []
        self.reports: Any = {"/dump": lambda query, respond: respond(as_json({"stacks": []}))}
        self.commands: Any = {"/stop": self._stop}

    def _stop(self, query: Mapping[str, str], respond: Respond) -> None:
        if "bad" in query:
            raise Refused(400, "bad is no parameter", allowed=["timeout"])
        self.done.append(query)
        respond(as_json({"done": True}))

    def families(self) -> list[Any]:
        return []

    def status(self) -> dict[str, Any]:
        return {"state": "serving"}

    def conditions(self) -> list[Condition]:
        return [Condition("first", self.holds, "draining"), Condition("second", True, "fine")]

    live = started = ready = conditions


def ask(
    subject: Subject, path: str, method: str = "GET", query: dict[str, str] | None = None, *, control: bool = False
) -> Answer:
    answers: list[Answer] = []
    soon: list[Callable[[], None]] = []
    Routes(subject, soon.append).answer(Request(method, path, query or {}, "", control), answers.append)
    for function in soon:
        function()
    (answer,) = answers
    return answer


@pytest.mark.parametrize(
    ("path", "word"), [("/livez", "not alive"), ("/readyz", "not ready"), ("/startupz", "not started")]
)
def test_probes(path: str, word: str) -> None:
    subject = Subject()
    assert ask(subject, path)[:2] == (200, b"ok\n")
    assert ask(subject, path, "HEAD").status == 200
    subject.holds = False
    assert ask(subject, path)[:2] == (503, f"{word}: draining\n".encode())
    assert ask(subject, path, query={"verbose": ""}).content == (
        f"[-] first: draining\n[+] second: fine\n{word}: draining\n".encode()
    )


def test_state_and_metrics() -> None:
    assert json.loads(ask(Subject(), "/status").content) == {"state": "serving"}
    assert ask(Subject(), "/metrics").media_type.startswith("text/plain; version=0.0.4")


def test_metrics_are_made_once_for_all_who_ask_in_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """They may take long: a hundred clients that ask at once must not keep the next probe waiting."""
    subject, soon, answers = Subject(), [], []
    made = []
    monkeypatch.setattr(subject, "families", lambda: made.append(1) or [])
    routes = Routes(subject, soon.append)
    for accept in ["", "application/openmetrics-text"] * 50:
        routes.answer(Request("GET", "/metrics", {}, accept, False), answers.append)
    routes.answer(Request("GET", "/livez", {}, "", False), answers.append)
    assert [answer.content for answer in answers] == [b"ok\n"]
    (function,) = soon
    function()
    assert len(answers) == 101
    assert len(made) == 2
    assert {answer.media_type[:12] for answer in answers[1:]} == {"text/plain; ", "application/"}
    routes.answer(Request("GET", "/metrics", {}, "", False), answers.append)
    soon[1]()
    assert len(made) == 3


def test_a_page_that_fails(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Subject()
    monkeypatch.setattr(subject, "status", lambda: 1 / 0)
    assert ask(subject, "/status").status == 500
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    ("path", "method", "control", "status", "allowed"),
    [
        ("/nothing", "GET", False, 404, ["/livez", "/metrics", "/readyz", "/startupz", "/status"]),
        ("/stop", "POST", False, 404, ["/livez", "/metrics", "/readyz", "/startupz", "/status"]),
        ("/nothing", "GET", True, 404, ["/dump", "/livez", "/metrics", "/readyz", "/startupz", "/status", "/stop"]),
        ("/stop", "GET", True, 405, ["POST"]),
        ("/dump", "POST", True, 405, ["GET", "HEAD"]),
        ("/livez", "DELETE", False, 405, ["GET", "HEAD"]),
    ],
)
def test_refusals(path: str, method: str, control: bool, status: int, allowed: list[str]) -> None:
    answer = ask(Subject(), path, method, control=control)
    assert answer.status == status
    assert json.loads(answer.content)["allowed"] == allowed


def test_commands_are_for_the_control_socket() -> None:
    subject = Subject()
    assert ask(subject, "/stop", "POST", {"timeout": "3"}, control=True).status == 200
    assert subject.done == [{"timeout": "3"}]
    answer = ask(subject, "/stop", "POST", {"bad": ""}, control=True)
    assert answer.status == 400
    assert json.loads(answer.content) == {"error": "bad is no parameter", "allowed": ["timeout"]}
    assert ask(subject, "/dump", control=True).status == 200
