"""Every case, on a fake transport in many pieces, and on real sockets on both event loops."""

from __future__ import annotations

import pytest

from tests.support.cuts import CUTS, at_random, cut_at, single_cuts, whole
from tests.support.echo import Echo
from tests.support.link import linked
from tests.support.loops import FACTORIES, run_on
from tests.support.responses import read_responses
from tests.support.serving import Client, serving
from tests.support.table import table
from tests.wire.cases import CASES, Case

LAST = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def judge(case: Case, received: bytes) -> None:
    """Compare what a client received until the connection ended."""
    answers = list(case.answers)
    if case.open:
        answers.append((200, b"GET /last|"))
    responses = read_responses(received, list(case.methods), ended=True)
    found = [
        (response.status, response.content if content is not None else None)
        for response, (_, content) in zip(responses, answers, strict=False)
    ]
    assert found == answers
    assert len(responses) == len(answers), responses[len(answers) :]
    if responses:
        assert tuple(status for status, _ in responses[0].interim) == case.interim
        for response in responses[:-1]:
            assert response.complete
            assert not response.closes
        if responses[-1].status >= 400:
            assert responses[-1].closes
    for text in case.never:
        assert text not in received


def pieces_of(case: Case) -> list[list[bytes]]:
    wire = case.wire + (LAST if case.open else b"")
    if len(wire) > 3000:
        return [whole(wire), at_random(wire), cut_at(wire, range(0, len(wire), 1459))]
    every = [cut(wire) for cut in CUTS]
    return [*every, *list(single_cuts(wire))[:: max(1, len(wire) // 6)]]


@table("case", CASES)
def test_on_a_fake_transport(case: Case) -> None:
    for pieces in pieces_of(case):
        delegate = Echo()
        with linked(delegate) as link:
            link.send(*pieces)
            if case.half_close:
                link.send_eof()
            elif not case.open:
                assert link.transport.eof
            judge(case, link.received)
        assert not delegate.exchanges
        assert delegate.ended == 1


@pytest.mark.parametrize("kind", FACTORIES)
@pytest.mark.parametrize("half", [0, 1, 2, 3])
def test_on_a_real_socket(kind: str, half: int) -> None:
    # A server for a quarter of the cases: what one leaves behind must not change the next.
    async def main() -> None:
        delegate = Echo()
        async with serving(delegate) as server:
            for case in CASES[half::4]:
                for cut in (whole, at_random):
                    async with await Client.connect(server) as client:
                        await client.send(*cut(case.wire + (LAST if case.open else b"")))
                        if case.half_close:
                            client.half_close()
                        try:
                            judge(case, await client.read_to_the_end())
                        except BaseException as exc:
                            exc.add_note(f"case: {case.name}, {cut.__name__}")
                            raise
            assert not delegate.exchanges

    run_on(kind, main)


def test_names_are_unique() -> None:
    names = [case.name for case in CASES]
    assert len(names) == len(set(names)), sorted({name for name in names if names.count(name) > 1})
