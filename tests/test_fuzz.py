"""The fuzzer: its corpus, with all that it has ever found, and that it finds something."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from fuzz import __main__ as module
from fuzz.mutate import Mutator
from fuzz.targets import TARGETS, Target


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus(name: str) -> None:
    seeds = module.seeds(name)
    assert len(seeds) > 2
    assert max(map(len, seeds)) < 10_000
    for data in seeds:
        TARGETS[name].run(data)


def test_each_folder_is_a_target_s() -> None:
    assert {path.name for path in module.CORPUS.iterdir()} == set(TARGETS)


@pytest.mark.parametrize("name", TARGETS)
def test_a_few_mutations(name: str) -> None:
    target = TARGETS[name]
    mutator = Mutator(module.seeds(name), target.words, random.Random(14))
    for _ in range(100):
        target.run(mutator.next())


def test_mutations_follow_from_the_seed() -> None:
    def made(seed: int) -> list[bytes]:
        mutator = Mutator([b"abc", b"defghi"], [b"WORD"], random.Random(seed))
        return [mutator.next() for _ in range(200)]

    assert made(1) == made(1) != made(2)
    assert any(b"WORD" in data for data in made(1))
    assert len(set(made(1))) > 150


def test_a_fault_is_found_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(data: bytes) -> None:
        assert b"WORD" not in data

    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "00").write_bytes(b"abc")
    monkeypatch.setattr(module, "CORPUS", tmp_path)
    count, path = module.fuzz(Target("one", fails, [b"WORD"]), 10, seed=1)
    assert path is not None
    assert path.name.startswith("found-")
    assert b"WORD" in path.read_bytes()
    assert "AssertionError" in capsys.readouterr().err
    # It is an input of the next run, the first of all.
    assert module.fuzz(Target("one", fails, [b"WORD"]), 10, seed=1) == (2, path)
    assert count > 2
