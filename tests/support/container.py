"""Follows a Dockerfile without Docker: each stage is this system's own files with a layer of its own over them.

``unshare --mount python -m tests.support.container CONTEXT PORT [WHEEL]`` needs root. It runs the steps in a
``chroot``, then what ENTRYPOINT and CMD say, as USER, with a read-only root and a fresh /tmp, as ``docker run
--read-only --tmpfs /tmp`` does. It asks the health check and the port, sends STOPSIGNAL, and prints what came of it as
JSON. All mounts are in the namespace of this process, and end with it. Known are the instructions that the shipped file
uses; another is an error.
"""

from __future__ import annotations

import glob
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import urlopen


@dataclass
class Stage:
    """What the instructions since FROM have made."""

    root: Path
    environ: dict[str, str]
    folder: str = "/"
    user: tuple[int, int] = (0, 0)
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    stop: str = "SIGTERM"

    def start(self, words: list[str], **environ: str) -> subprocess.Popen[str]:
        """Run a command inside."""
        uid, gid = self.user

        def enter() -> None:
            os.chroot(self.root)
            os.chdir(self.folder)
            if uid:
                os.setgroups([])
                os.setgid(gid)
                os.setuid(uid)

        return subprocess.Popen(
            ["/usr/bin/env", *words],  # env looks along the PATH in there
            env=self.environ | environ,
            preexec_fn=enter,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, words: list[str], **environ: str) -> tuple[int, str]:
        """Run a command to its end; return its status and output."""
        process = self.start(words, **environ)
        output, _ = process.communicate(timeout=300)
        return process.returncode, output


def mount(*words: str | Path) -> None:
    subprocess.run(["mount", *map(str, words)], check=True)


def new_stage(folder: Path) -> Stage:
    """Put a layer over this system's files."""
    for name in ("upper", "work", "root"):
        (folder / name).mkdir(parents=True)
    root = folder / "root"
    options = f"lowerdir=/,upperdir={folder / 'upper'},workdir={folder / 'work'}"
    mount("-t", "overlay", "overlay", "-o", options, root)
    mount("--rbind", "/dev", root / "dev")
    mount("-t", "proc", "proc", root / "proc")
    mount("-t", "tmpfs", "tmpfs", root / "tmp")
    # The image's python: this one, for all users.
    python = Path(os.path.realpath(sys.executable))
    for parent in python.parents:
        if parent != Path("/"):
            (root / parent.relative_to("/")).chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "HTTP"))}
    return Stage(root, kept | {"PATH": f"{python.parent}:/usr/bin:/bin", "HOME": "/"})


def instructions(text: str) -> list[tuple[str, str]]:
    """Return (name, arguments) of each instruction."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in joined)]


def build(text: str, context: Path, place: Path) -> Stage:
    """Run all instructions and return the last stage."""
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    for name, rest in instructions(text):
        if name == "FROM":
            stage = new_stage(place / f"stage{len(stages)}")
            stages[rest.partition(" AS ")[2] or str(len(stages))] = stage
            continue
        assert stage is not None
        if name == "WORKDIR":
            stage.folder = rest
            (stage.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif name == "COPY":
            copy(stage, stages, shlex.split(rest), context)
        elif name == "RUN":
            status, output = stage.run(["/bin/sh", "-c", rest])
            assert status == 0, f"RUN {rest}:\n{output}"
        elif name == "ENV":
            for word in shlex.split(rest):
                key, _, value = word.partition("=")
                stage.environ[key] = re.sub(r"\$(\w+)", lambda match: stage.environ.get(match[1], ""), value)  # noqa: B023
        elif name == "USER":
            uid, _, gid = rest.partition(":")
            stage.user = int(uid), int(gid)
        elif name == "STOPSIGNAL":
            stage.stop = rest
        elif name == "HEALTHCHECK":
            stage.health = json.loads(rest.partition("CMD ")[2])
        elif name in ("ENTRYPOINT", "CMD"):
            setattr(stage, {"ENTRYPOINT": "entrypoint", "CMD": "command"}[name], json.loads(rest))
        else:
            assert name == "EXPOSE", f"{name}: not known here"
    assert stage is not None
    return stage


def copy(stage: Stage, stages: dict[str, Stage], words: list[str], context: Path) -> None:
    """COPY, from the context or from another stage."""
    source = context
    if words[0].startswith("--from="):
        source = stages[words.pop(0).removeprefix("--from=")].root
    *names, target = words
    found = [match for name in names for match in glob.glob(name.lstrip("/"), root_dir=source)]
    assert found, f"COPY {' '.join(names)}: nothing there"
    folder = stage.root / os.path.join(stage.folder, target).lstrip("/")
    for name in found:
        path = source / name
        if path.is_dir():
            shutil.copytree(path, folder, symlinks=True)
        else:
            shutil.copy(path, folder / path.name if folder.is_dir() else folder)


def main(context: Path, wheel: Path | None, port: str) -> dict[str, object]:
    """Build and run; return what came of it."""
    place = Path(tempfile.mkdtemp(prefix="bridge-container-"))
    try:
        mount("-t", "tmpfs", "tmpfs", place)
        given = place / "context"
        shutil.copytree(context, given)
        if wheel is not None:
            shutil.copy(wheel, given)
        stage = build((context / "Dockerfile").read_text(encoding="utf-8"), given, place)
        mount("-o", "remount,ro", stage.root)
        # The ports are this system's: others may have taken those of the file.
        environ = {"BRIDGE_BIND": f"127.0.0.1:{port}", "BRIDGE_ADMIN_BIND": "127.0.0.1:0"}
        return run(stage, port, environ)
    finally:
        subprocess.run(["umount", "--lazy", "--recursive", place], check=False)
        place.rmdir()


def run(stage: Stage, port: str, environ: dict[str, str]) -> dict[str, object]:
    """Start the container, ask it, and stop it."""
    process = stage.start([*stage.entrypoint, *stage.command], **environ)
    lines: list[str] = []
    serving = threading.Event()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if "bridge: serving" in line:
                serving.set()
        serving.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        serving.wait(60)
        found: dict[str, object] = {}
        found["health"], found["status"] = stage.run(stage.health, **environ)
        found["content"] = urlopen(f"http://127.0.0.1:{port}/", timeout=30).read().decode()
        found["owner"] = os.stat(f"/proc/{process.pid}").st_uid
        found["write"] = stage.run(["touch", "/srv/app/x"])[1]
        process.send_signal(getattr(signal, stage.stop))
        found["end"] = process.wait(60)
        found["unhealthy"] = stage.run(stage.health, **environ)[0]
        return found
    finally:
        process.kill()
        reader.join(10)
        print("".join(lines), file=sys.stderr)


if __name__ == "__main__":
    wheel = Path(sys.argv[3]) if len(sys.argv) > 3 else None
    print(json.dumps(main(Path(sys.argv[1]), wheel, sys.argv[2])))
