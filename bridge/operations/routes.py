"""What the server answers for itself: probes, metrics, its state, and, over the control socket, commands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from bridge.core.log import app_log
from bridge.operations.health import Condition, probe
from bridge.operations.messages import FAULT, Answer, Request, Respond, as_json, refusal
from bridge.telemetry.metrics.exposition import expose, negotiate

if TYPE_CHECKING:
    from bridge.telemetry.metrics.application import ApplicationMetrics
    from bridge.telemetry.metrics.collect import Family

__all__ = ["Command", "Refused", "Routes", "Subject", "metrics_answer"]


class Refused(Exception):
    """A command cannot be carried out.

    Args:
        status: 400 if it is wrong, 409 if it cannot be done now.
        error: Why, in one sentence.
        **more: As for :func:`refusal`.
    """

    def __init__(self, status: int, error: str, **more: object) -> None:
        super().__init__(error)
        self.answer = refusal(status, error, **more)


#: Carries out a command: takes its parameters, and answers at any time.
Command = Callable[[Mapping[str, str], Respond], None]


class Subject(Protocol):
    """The server that is operated: a master with its workers, or a process without a master."""

    def families(self) -> list[Family]:
        """Return its metrics."""
        ...

    @property
    def application(self) -> ApplicationMetrics | None:
        """The application's own metrics."""
        ...

    def status(self) -> dict[str, Any]:
        """Return its state, as json can write it."""
        ...

    def live(self) -> Sequence[Condition]:
        """Return the conditions for being alive."""
        ...

    def started(self) -> Sequence[Condition]:
        """Return the conditions for having started."""
        ...

    def ready(self) -> Sequence[Condition]:
        """Return the conditions for being ready."""
        ...

    @property
    def reports(self) -> Mapping[str, Command]:
        """The commands that change nothing (GET), by path."""
        ...

    @property
    def commands(self) -> Mapping[str, Command]:
        """The commands that change something (POST), by path."""
        ...


class Routes:
    """Answers requests about a server.

    Probes are answered at once. Metrics and the state take milliseconds: they are made once for all who have asked in
    the same turn, behind the probes of that turn. So many clients that ask for them keep no probe waiting.

    Args:
        subject: The server.
        soon: Calls a function after all requests of this turn.
    """

    def __init__(self, subject: Subject, soon: Callable[[Callable[[], None]], None]) -> None:
        self._subject = subject
        self._soon = soon
        self._waiting: dict[tuple[str, str], list[Respond]] = {}
        self._probes: dict[str, Callable[[Request], Answer]] = {
            "/livez": lambda request: self._probe(subject.live(), "not alive", request),
            "/readyz": lambda request: self._probe(subject.ready(), "not ready", request),
            "/startupz": lambda request: self._probe(subject.started(), "not started", request),
        }
        self._pages: dict[str, Callable[[str], Answer]] = {
            "/metrics": lambda media_type: metrics_answer(subject.families(), media_type, subject.application),
            "/status": lambda _: as_json(subject.status()),
        }

    def answer(self, request: Request, respond: Respond) -> None:
        """Answer *request*, now or later."""
        path = request.path.rstrip("/") or "/"
        reports = self._subject.reports if request.control else {}
        commands = self._subject.commands if request.control else {}
        if path in self._probes or path in self._pages or path in reports:
            allowed = ["GET", "HEAD"]
        elif path in commands:
            allowed = ["POST"]
        else:
            known = sorted([*self._probes, *self._pages, *reports, *commands])
            respond(refusal(404, f"there is no {request.path[:80]!r} here", allowed=known))
            return
        if request.method not in allowed:
            answer = refusal(405, f"{request.method[:20]} {path}: the method is not allowed", allowed=allowed)
            respond(answer._replace(fields=((b"allow", ", ".join(allowed).encode()),)))
            return
        if path in self._probes:
            respond(self._probes[path](request))
            return
        if path in self._pages:
            if not self._waiting:
                self._soon(self._answer_waiting)
            kind = negotiate(request.accept) if path == "/metrics" else ""
            self._waiting.setdefault((path, kind), []).append(respond)
            return
        command = reports.get(path) or commands[path]
        try:
            command(request.query, respond)
        except Refused as exc:
            respond(exc.answer)

    def _answer_waiting(self) -> None:
        """Make each page once that was asked for, and answer all who have asked."""
        waiting, self._waiting = self._waiting, {}
        for (path, kind), responds in waiting.items():
            try:
                answer = self._pages[path](kind)
            except Exception:
                app_log.exception("A request to the server itself has failed: %s", path)
                answer = refusal(500, FAULT)
            for respond in responds:
                respond(answer)

    @staticmethod
    def _probe(conditions: Sequence[Condition], otherwise: str, request: Request) -> Answer:
        return probe(conditions, otherwise, verbose="verbose" in request.query)


def metrics_answer(families: list[Family], media_type: str, application: ApplicationMetrics | None = None) -> Answer:
    """Return metrics in a format.

    Args:
        families: The metrics.
        media_type: The format, as :func:`negotiate` returns it.
        application: The application's own metrics.
    """
    more = b"" if application is None else application.expose(media_type, {each.metric.name for each in families})
    return Answer(200, expose(families, media_type, more), media_type)
