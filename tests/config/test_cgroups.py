"""What a container may use, from trees of control groups of both versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.config import cgroups, process
from bridge.config.cgroups import cpu_quota, memory_limit, memory_usage
from bridge.config.sources import load

V2 = "29 23 0:26 {top} /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
V1 = (
    "32 31 0:29 {top} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "33 31 0:30 {top} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
)
HYBRID = V1 + "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
CPU = "sys/fs/cgroup/cpu,cpuacct"
MEMORY = "sys/fs/cgroup/memory"


def tree(root: Path, groups: str, mounts: str, files: dict[str, str]) -> str:
    """Make a tree and return its root."""
    for name, text in {"proc/self/cgroup": groups, "proc/self/mountinfo": mounts, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


@pytest.mark.parametrize(
    ("groups", "mounts", "files", "quota"),
    [
        pytest.param("", "", {}, None, id="no control groups"),
        pytest.param("0::/\n", V2.format(top="/"), {}, None, id="2, nothing set"),
        pytest.param("0::/\n", V2.format(top="/"), {"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5, id="2"),
        pytest.param("0::/\n", V2.format(top="/"), {"sys/fs/cgroup/cpu.max": "max 100000\n"}, None, id="2, max"),
        pytest.param("0::/\n", V2.format(top="/"), {"sys/fs/cgroup/cpu.max": "rubbish"}, None, id="2, rubbish"),
        pytest.param(
            "0::/a/b/c\n",
            V2.format(top="/"),
            {
                "sys/fs/cgroup/a/b/c/cpu.max": "max 100000",
                "sys/fs/cgroup/a/b/cpu.max": "350000 100000",
                "sys/fs/cgroup/a/cpu.max": "800000 100000",
            },
            3.5,
            id="2, nested: a group above decides",
        ),
        pytest.param(
            "0::/a/b\n",
            V2.format(top="/a/b"),
            {"sys/fs/cgroup/cpu.max": "50000 100000"},
            0.5,
            id="2, the mount shows a part only",
        ),
        pytest.param(
            "0::/../other\n",
            V2.format(top="/"),
            {"sys/fs/cgroup/cpu.max": "200000 100000"},
            2.0,
            id="2, the group is outside of the namespace",
        ),
        pytest.param(
            "0::/\n",
            "1432 1431 0:26 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate\n",
            {"sys/fs/cgroup/cpu.max": "150000 100000\n"},
            1.5,
            id="2, Docker: a namespace of its own, read-only",
        ),
        pytest.param(
            "0::/\n",
            "1400 1390 0:26 /../../.. /host/cgroup ro - cgroup2 cgroup rw\n" + V2.format(top="/"),
            {"sys/fs/cgroup/cpu.max": "50000 100000\n", "host/cgroup/cgroup.controllers": "cpu memory"},
            0.5,
            id="2, an agent that mounts the host's, too",
        ),
        pytest.param(
            "0::/system.slice/shop.service\n",
            V2.format(top="/"),
            {
                "sys/fs/cgroup/system.slice/shop.service/cpu.max": "max 100000\n",
                "sys/fs/cgroup/system.slice/cpu.max": "600000 100000\n",
            },
            6.0,
            id="2, systemd: the slice decides",
        ),
        pytest.param(
            "11:cpu,cpuacct:/kubepods/burstable/pod1/2\n1:name=systemd:/kubepods/burstable/pod1/2\n0::/\n",
            HYBRID.format(top="/kubepods/burstable/pod1/2"),
            {f"{CPU}/cpu.cfs_quota_us": "-1\n", f"{CPU}/cpu.cfs_period_us": "100000\n", f"{CPU}/cpu.shares": "256\n"},
            None,
            id="both, Kubernetes: a request without a limit",
        ),
        pytest.param(
            "11:cpu,cpuacct:/kubepods/pod1/2\n1:name=systemd:/kubepods/pod1/2\n",
            HYBRID.format(top="/kubepods/pod1/2"),
            {f"{CPU}/cpu.cfs_quota_us": "200000\n", f"{CPU}/cpu.cfs_period_us": "100000\n"},
            2.0,
            id="both, Kubernetes: guaranteed",
        ),
        pytest.param(
            "0::/user.slice/gone (deleted)\n",
            V2.format(top="/"),
            {"sys/fs/cgroup/user.slice/cpu.max": "300000 100000\n"},
            3.0,
            id="2, a group that was removed",
        ),
        pytest.param("0::/\n", "", {}, None, id="2, nothing is mounted"),
        pytest.param(
            "4:cpu,cpuacct:/docker/1\n3:memory:/docker/1\n",
            V1.format(top="/"),
            {f"{CPU}/docker/1/cpu.cfs_quota_us": "250000\n", f"{CPU}/docker/1/cpu.cfs_period_us": "100000\n"},
            2.5,
            id="1",
        ),
        pytest.param(
            "4:cpu,cpuacct:/docker/1\n",
            V1.format(top="/docker/1"),
            {f"{CPU}/cpu.cfs_quota_us": "100000", f"{CPU}/cpu.cfs_period_us": "50000"},
            2.0,
            id="1, the mount shows a part only",
        ),
        pytest.param(
            "4:cpu,cpuacct:/\n",
            V1.format(top="/"),
            {f"{CPU}/cpu.cfs_quota_us": "-1", f"{CPU}/cpu.cfs_period_us": "100000"},
            None,
            id="1, no limit",
        ),
        pytest.param(
            "4:cpu,cpuacct:/a\n0::/a\n",
            HYBRID.format(top="/"),
            {
                f"{CPU}/a/cpu.cfs_quota_us": "300000",
                f"{CPU}/a/cpu.cfs_period_us": "100000",
                "sys/fs/cgroup/unified/a/cpu.max": "max 100000",
            },
            3.0,
            id="both",
        ),
    ],
)
def test_cpus(tmp_path: Path, groups: str, mounts: str, files: dict[str, str], quota: float | None) -> None:
    assert cpu_quota(tree(tmp_path, groups, mounts, files)) == quota


STAT = "anon 5000\ninactive_file 1000\nactive_file 7\n"


@pytest.mark.parametrize(
    ("groups", "mounts", "files", "limit", "used"),
    [
        pytest.param("0::/\n", V2.format(top="/"), {"sys/fs/cgroup/memory.max": "max"}, None, None, id="2, max"),
        pytest.param(
            "0::/a/b\n",
            V2.format(top="/"),
            {
                "sys/fs/cgroup/a/b/memory.max": "max",
                "sys/fs/cgroup/a/memory.max": "1000000",
                "sys/fs/cgroup/a/memory.current": "6007",
                "sys/fs/cgroup/a/memory.stat": STAT,
            },
            1000000,
            5007,
            id="2",
        ),
        pytest.param(
            "3:memory:/a\n",
            V1.format(top="/"),
            {
                f"{MEMORY}/memory.limit_in_bytes": str((1 << 63) - 4096),
                f"{MEMORY}/a/memory.limit_in_bytes": "2000000",
                f"{MEMORY}/a/memory.usage_in_bytes": "9000",
                f"{MEMORY}/a/memory.stat": "total_inactive_file 4000\n",
            },
            2000000,
            5000,
            id="1",
        ),
        pytest.param(
            "3:memory:/a\n", V1.format(top="/"), {f"{MEMORY}/a/memory.limit_in_bytes": "7"}, 7, None, id="no usage"
        ),
    ],
)
def test_memory(
    tmp_path: Path, groups: str, mounts: str, files: dict[str, str], limit: int | None, used: int | None
) -> None:
    root = tree(tmp_path, groups, mounts, files)
    assert (memory_limit(root), memory_usage(root)) == (limit, used)


@pytest.mark.parametrize(
    ("machine", "affinity", "wanted", "quota", "number", "why"),
    [
        (64, 64, None, None, 64, "64 CPUs"),
        (64, 64, None, 3.5, 4, "64 CPUs, cgroup allows 3.5"),
        (64, 8, None, None, 8, "64 CPUs, may run on 8"),
        (64, 8, "2", 3.5, 2, "64 CPUs, may run on 8, PYTHON_CPU_COUNT is 2, cgroup allows 3.5"),
        (1, 1, "default", 0.2, 1, "1 CPU, cgroup allows 0.2"),
        (4, 4, "9", None, 4, "4 CPUs, PYTHON_CPU_COUNT is 9"),
        (4, 4, "0", 16.0, 4, "4 CPUs, cgroup allows 16"),
    ],
)
def test_workers_auto(
    monkeypatch: pytest.MonkeyPatch,
    machine: int,
    affinity: int,
    wanted: str | None,
    quota: float | None,
    number: int,
    why: str,
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: machine)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(affinity)))
    monkeypatch.setattr(cgroups, "cpu_quota", lambda: quota)
    if wanted is None:
        monkeypatch.delenv("PYTHON_CPU_COUNT", raising=False)
    else:
        monkeypatch.setenv("PYTHON_CPU_COUNT", wanted)
    for text in ("auto", "0"):
        workers = load(["app:app", "--workers", text], {}).workers
        assert workers == number
        assert isinstance(workers, process.WorkerCount)
        assert workers.why == why
    assert load(["app:app", "--workers", "3"], {}).workers == 3
