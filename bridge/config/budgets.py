"""The settings for what all clients of a process may use together, a part of the table in `bridge.config.settings`."""

from __future__ import annotations

from typing import Literal

from bridge.config.kinds import SIZE, off_or, whole
from bridge.config.output import OutputConfig
from bridge.config.table import setting

__all__ = ["BUDGETS", "BudgetsConfig"]

BUDGETS = "Budgets of a process"

MIB = 1 << 20


class BudgetsConfig(OutputConfig):
    """What all clients of one process together may make it hold and do."""

    limit_unfinished: int | None = setting(
        BUDGETS,
        off_or(SIZE),
        32 * MIB,
        "memory of a process for heads, small content and WebSocket messages that clients have begun; beyond it those"
        " end that have had the most for the longest, with 503 or close code 1013",
    )
    limit_unsent: int | None = setting(
        BUDGETS,
        off_or(SIZE),
        32 * MIB,
        "memory of a process for responses that wait for their clients; beyond it connections are reset that have read"
        " next to nothing for 5 s",
    )
    limit_spool: int | None = setting(
        BUDGETS,
        off_or(SIZE),
        256 * MIB,
        "temporary files of a process for uploads and responses of WSGI, and memory for uploads to functions;"
        " beyond it uploads end with 503, and threads wait for their clients",
    )
    threads_slow: int | Literal["auto"] | None = setting(
        BUDGETS,
        off_or(whole(1)),
        "auto",
        "threads of WSGI that may wait for slow clients while requests wait for a thread; beyond it the clients are cut"
        " off that were waited for longest, 5 s at least",
        shown="half of --threads",
    )
    limit_turn: int = setting(
        BUDGETS,
        whole(1),
        4096,
        "chunks, frames and the like that a process reads in one turn of its loop, about one a microsecond; the rest"
        " waits for the next turn, so that a flood of them keeps nobody waiting",
    )
    rate_request_body: int | None = setting(
        BUDGETS,
        off_or(SIZE),
        240,
        "how much content of a request has to come in a second, on average over --timeout-request-body; then 408; off"
        " takes any byte for progress",
    )
