"""The process whose instructions are counted: it serves what it says, or nothing."""

import pytest

from benchmarks import instructions


@pytest.mark.parametrize("sends", instructions.SENDS.values())
@pytest.mark.parametrize("idle", [False, True])
async def test_every_request_is_answered_or_none_is_sent(sends, idle, monkeypatch):
    answers = []
    write = instructions.CountingTransport.write

    def noted(self, data):
        answers.append(bytes(data))
        write(self, data)

    monkeypatch.setattr(instructions.CountingTransport, "write", noted)
    await instructions.run(sends, 3, idle)
    assert len(answers) == (0 if idle else 3)
    assert all(answer.endswith(b"\r\n\r\nHello, World!") for answer in answers)


async def test_a_missing_answer_is_an_error(monkeypatch):
    monkeypatch.setattr(instructions.CountingTransport, "write", lambda self, data: None)
    with pytest.raises(SystemExit, match="0 answers to 3 requests"):
        await instructions.run("get", 3, False)
