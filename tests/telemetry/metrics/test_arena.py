"""Blocks of cells: what one process writes, another reads; nothing that is summed falls."""

from __future__ import annotations

import errno
import io
import os
import resource
import tempfile
from pathlib import Path

import pytest

from bridge.errors import ConfigError
from bridge.telemetry.metrics import catalog
from bridge.telemetry.metrics.arena import _MERGES as MERGES
from bridge.telemetry.metrics.arena import FREE, MASTER, READY, Arena, Block, Row, read
from bridge.telemetry.metrics.collect import collect

NAME = "http_server_request_duration_seconds"
COUNTED = frozenset({NAME})


def rows(arena: Arena) -> dict[tuple[str, tuple[tuple[str, str], ...]], list[int]]:
    found: dict[tuple[str, tuple[tuple[str, str], ...]], list[int]] = {}
    for reading in read([arena]):
        for row in reading.rows:
            before = found.setdefault((row.name, row.labels), [0] * len(row.cells))
            found[row.name, row.labels] = [a + b for a, b in zip(before, row.cells, strict=True)]
    return found


def test_a_row_is_made_once_and_read_as_it_was_written() -> None:
    arena = Arena(2)
    block = arena.allocate(3)
    assert block is not None
    labels = (("method", "GET"), ("route", "/a b/é"))
    index = block.row(NAME, labels)
    assert block.row(NAME, dict(labels)) == index
    block.cells[index] += 7
    block.cells[index + 15] = (1 << 64) - 1
    (row,) = block.rows()
    assert row == Row(NAME, labels, [7, *[0] * 14, (1 << 64) - 1])
    assert block.slot == 3


def test_blocks_are_given_out_until_none_is_left_and_again_when_one_is_retired() -> None:
    arena = Arena(3)
    one, other = arena.allocate(0), arena.allocate(1)
    assert one is not None
    assert other is not None
    assert arena.allocate(2) is None
    arena.retire(one, COUNTED)
    assert one.state == FREE
    again = arena.allocate(5)
    assert again is one
    assert list(again.rows()) == []


def test_what_a_process_has_counted_outlives_it() -> None:
    arena = Arena(2)
    for number in range(1, 4):
        block = arena.allocate(0)
        assert block is not None
        block.cells[block.row(NAME, (("method", "GET"),))] += number
        block.set("bridge_threads", (("state", "busy"),), 5)
        arena.retire(block, COUNTED)
    assert rows(arena) == {(NAME, (("method", "GET"),)): [6, *[0] * 15]}


def test_gauges_that_are_summed_stay_at_0_until_the_next_process_has_them() -> None:
    arena = Arena(2)
    labels = (("http_request_method", "GET"), ("url_scheme", "http"))
    for number in (5, 7):
        block = arena.allocate(0)
        assert block is not None
        block.set("http_server_active_requests", labels, number)
        block.set("bridge_loop_lag_seconds", (("worker", "0"),), number)
        shown = {family.metric.name: family.samples for family in collect([arena])}
        assert shown["http_server_active_requests"] == {labels: [number]}
        arena.retire(block, catalog.COUNTED, catalog.KEPT)
        shown = {family.metric.name: family.samples for family in collect([arena])}
        assert shown["http_server_active_requests"] == {labels: [0]}
        assert "bridge_loop_lag_seconds" not in shown  # of which 0 would be a good value


def test_the_number_of_retirements_is_odd_while_a_count_is_in_two_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    arena = Arena(2)
    block = arena.allocate(0)
    assert block is not None
    block.cells[block.row(NAME)] += 3
    seen = []
    clear = Block.clear

    def look_and_clear(block: Block) -> None:
        seen.append((arena.own.cells[MERGES], [row.cells[0] for row in (*arena.own.rows(), *block.rows())]))
        clear(block)

    monkeypatch.setattr(Block, "clear", look_and_clear)
    arena.retire(block, COUNTED)
    assert seen == [(1, [3, 3])]
    assert arena.own.cells[MERGES] == 2


@pytest.mark.parametrize("step", [1, 2], ids=["a retirement ends", "one begins and ends"])
def test_what_is_read_during_a_retirement_is_read_again(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    arena = Arena(2)
    arena.own.cells[MERGES] = 1 if step == 1 else 0
    looks = []
    real = Block.rows

    def rows(block: Block) -> list[Row]:
        looks.append(1)
        if len(looks) == 1:
            arena.own.cells[MERGES] += step
        return list(real(block))

    monkeypatch.setattr(Block, "rows", rows)
    read([arena])
    assert len(looks) == 2


def test_no_count_is_too_large_to_be_kept() -> None:
    arena = Arena(2)
    for _ in range(2):
        block = arena.allocate(0)
        assert block is not None
        block.cells[block.row(NAME)] = (1 << 64) - 1
        arena.retire(block, COUNTED)
    assert rows(arena) == {(NAME, ()): [(1 << 64) - 2, *[0] * 15]}
    assert arena.own.cells[MERGES] % 2 == 0  # readers need not look again


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_child_counts_and_its_parent_reads_also_after_it_was_killed() -> None:
    arena = Arena(2)
    block = arena.allocate(0)
    assert block is not None
    child = os.fork()
    if child == 0:
        index = block.row(NAME)
        for _ in range(1000):
            block.cells[index] += 1
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    assert rows(arena)[NAME, ()][0] == 1000


def test_another_master_reads_the_same_memory() -> None:
    arena = Arena(3)
    block = arena.allocate(0)
    assert block is not None
    other = Arena(descriptor=os.dup(arena.descriptor))
    assert other.own.state == MASTER
    block.add(NAME, (), 4)
    block.state = READY
    assert rows(other) == {(NAME, ()): [4, *[0] * 15]}


def test_memory_of_something_else_is_refused() -> None:
    descriptor = os.memfd_create("empty")
    with pytest.raises(ValueError, match="no memory for counts"):
        Arena(descriptor=descriptor)
    os.close(descriptor)


def test_rows_are_bounded() -> None:
    arena = Arena(2)
    block = arena.allocate(0)
    assert block is not None
    before = block.room
    for number in range(before):
        block.row("name", (("n", str(number)),))
    with pytest.raises(LookupError):
        block.row("one", (("more", "label"),))
    block.add("one", (("more", "label"),))  # nothing happens
    block.set("one", (("more", "label"),), 1)
    assert len(list(block.rows())) == before
    assert block.row("name", (("n", "0"),)) > 0
    arena.retire(block, frozenset({"name"}))
    assert len(rows(arena)) == before


def test_what_another_process_wrote_is_not_believed() -> None:
    arena = Arena(2)
    block = arena.allocate(0)
    assert block is not None
    index = block.row("name", (("a", "b"),))
    block.cells[index - 31] = 1 << 60  # the length of the key
    block.cells[4] = 1 << 50  # the number of rows
    found = list(block.rows())
    assert found[0].name == "name"
    assert len(found) == 1024


def test_a_long_key_is_cut() -> None:
    arena = Arena(2)
    block = arena.allocate(0)
    assert block is not None
    block.row("name", (("route", "/" + "é" * 500),))
    (row,) = block.rows()
    assert len(row.labels[0][1]) < 240


def test_a_closed_arena_leaves_no_descriptor() -> None:
    before = set(os.listdir("/proc/self/fd"))
    arena = Arena(3)
    block = arena.allocate(0)
    assert block is not None
    block.add(NAME)
    arena.close()
    arena.close()
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_file_of_counts_has_its_room_from_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where memory without a file is not to be had."""
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    arena = Arena(2)
    found = os.fstat(arena.descriptor)
    assert found.st_blocks * 512 >= found.st_size
    arena.close()
    monkeypatch.setattr(tempfile, "TemporaryFile", Full)
    with pytest.raises(ConfigError, match=r"metrics: no room for \d+ KiB in .*: No space left on device; TMPDIR names"):
        Arena(2)


def test_where_a_sandbox_refuses_memory_it_is_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> int:
        raise PermissionError(errno.EPERM, name)

    monkeypatch.setattr(os, "memfd_create", refuse)
    arena = Arena(2)
    assert os.readlink(f"/proc/self/fd/{arena.descriptor}").startswith(tempfile.gettempdir())
    arena.close()


def test_a_limit_of_the_size_of_files_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a limit of memory without a file, too."""
    before = set(os.listdir("/proc/self/fd"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10240, hard))
    try:
        with pytest.raises(ConfigError, match=r"metrics: no room for \d+ KiB: this process .* \(ulimit -f\)"):
            Arena(2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert set(os.listdir("/proc/self/fd")) == before


class Full(io.BytesIO):
    """A file on a full disk."""

    def write(self, data: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
