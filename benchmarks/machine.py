"""What the kernel tells: processor time and memory of a process tree, the cores, the machine's description."""

import importlib.metadata
import os
import platform
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """The part of /proc/PID/stat that is used here; times in seconds."""

    pid: int
    parent: int
    cpu: float
    reaped_children_cpu: float


def parse_stat(text: str) -> ProcessStat:
    """Read one /proc/PID/stat line (proc(5)); the command name may hold spaces and parentheses."""
    before, _, after = text.rpartition(")")
    fields = after.split()
    user, system, children_user, children_system = (int(field) for field in fields[11:15])
    return ProcessStat(
        pid=int(before.partition(" ")[0]),
        parent=int(fields[1]),
        cpu=(user + system) / TICKS_PER_SECOND,
        reaped_children_cpu=(children_user + children_system) / TICKS_PER_SECOND,
    )


def parse_memory(text: str) -> int:
    """Return VmRSS of a /proc/PID/status text, in bytes; 0 for a process without memory (a zombie)."""
    for line in text.splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def parse_busy(text: str, core: int) -> float:
    """Return the seconds that *core* has worked since boot, from a /proc/stat text."""
    for line in text.splitlines():
        if line.startswith(f"cpu{core} "):
            user, nice, system, _idle, _iowait, irq, softirq, *_ = (int(field) for field in line.split()[1:])
            return (user + nice + system + irq + softirq) / TICKS_PER_SECOND
    raise LookupError(f"/proc/stat has no core {core}")


def busy_seconds(core: int) -> float:
    """Return the seconds that *core* has worked since boot."""
    return parse_busy((PROC / "stat").read_text(), core)


def process_tree(root: int) -> list[ProcessStat]:
    """Return *root* and its living descendants."""
    stats: dict[int, ProcessStat] = {}
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = parse_stat((entry / "stat").read_text())
        except (FileNotFoundError, ProcessLookupError):  # it ended between the listing and the reading
            continue
        stats[stat.pid] = stat
        children.setdefault(stat.parent, []).append(stat.pid)
    found = []
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        if pid in stats:
            found.append(stats[pid])
            waiting.extend(children.get(pid, ()))
    return found


def precise_cpu(stat: ProcessStat) -> float:
    """Return the user and system seconds of one process, to the nanosecond.

    /proc/PID/stat counts in ticks of 10 ms, too coarse for a start that takes 100; the kernel's clock of the process
    (clock_getcpuclockid(3)) counts the same time exactly, with the threads that have ended.
    """
    try:
        return time.clock_gettime((~stat.pid << 3) | 2)
    except OSError:  # it has just ended, or the kernel has no such clock
        return stat.cpu


def tree_cpu(root: int) -> float:
    """Return the user and system seconds that *root* and its descendants have used, ended ones too if reaped."""
    return sum(precise_cpu(stat) + stat.reaped_children_cpu for stat in process_tree(root))


def tree_memory(root: int) -> int:
    """Return the resident bytes of *root* and its descendants; pages that they share count once for each."""
    total = 0
    for stat in process_tree(root):
        try:
            total += parse_memory((PROC / str(stat.pid) / "status").read_text())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


def choose_cores() -> tuple[int, int] | None:
    """Return one core for the server and one for the load, None when only one is allowed."""
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[-1], allowed[0]) if len(allowed) > 1 else None


def describe() -> dict[str, str]:
    """Return the machine in words that say nothing of whose machine it is."""
    model = "unknown"
    for line in (PROC / "cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    arguments = sysconfig.get_config_var("CONFIG_ARGS") or ""
    # Debian's packages are profiled too, but what they tell of their build leaves that out.
    optimised = "--enable-optimizations" in arguments or "/usr/share/python-wheels" in arguments
    return {
        "processor": model,
        "cores": str(len(os.sched_getaffinity(0))),
        "kernel": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "build": f"{platform.python_compiler()}, {'with' if optimised else 'without'} profile-guided optimisation",
    }


def version(distribution: str) -> str | None:
    """Return the installed version of *distribution*, None when it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
