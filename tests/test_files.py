"""Files by name, as root, while the owner of the directory works against it.

The attacks are made before and after every single call to the system, so that no race is left to chance.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge import files
from bridge.core.net.bind import bind_unix
from bridge.files import Identity, Place, acting_as, open_to_append, replace
from bridge.supervisor.pidfile import PidFile
from tests.support.astray import NOBODY, another_directory, clear, dangling, hard_link, link, pipe

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be led astray")


# In memory where there is such a place: there are thousands of them.
PLACE = "/dev/shm" if os.path.isdir("/dev/shm") else None


def nobody() -> Identity:
    return Identity("nobody", NOBODY.pw_uid, NOBODY.pw_gid, (NOBODY.pw_gid,))


class Scene:
    """A directory of root's with files that matter, and one of nobody's."""

    def __init__(self, top: Path) -> None:
        os.chmod(top, 0o755)
        self.top = top
        self.roots = top / "roots"
        self.site = top / "site"
        self.secret = self.roots / "log"
        self.path = self.site / "logs" / "log"
        self.roots.mkdir()
        self.secret.write_text("secret\n")
        self.secret.chmod(0o600)
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(str(self.roots / "control"))
        self.listening.listen()
        os.chmod(self.roots / "control", 0o600)
        self.path.parent.mkdir(parents=True)
        for place in (self.site, self.path.parent):
            os.chown(place, nobody().uid, nobody().gid)
        self.before = self.state()

    def state(self) -> dict[str, object]:
        """Return what must not change."""
        found: dict[str, object] = {"names": sorted(os.listdir(self.roots))}
        for name in ("log", "control"):
            status = os.lstat(self.roots / name)
            found[name] = (status.st_ino, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_size)
        return found


@pytest.fixture
def scene() -> Iterator[Scene]:
    with tempfile.TemporaryDirectory(dir=PLACE) as name:  # pytest's own directories are closed to others
        made = Scene(Path(name))
        yield made
        made.listening.close()


# --- the attacks ------------------------------------------------------------------------------------------------------


def hard_link_to_socket(scene: Scene) -> None:
    clear(scene)
    os.link(scene.roots / "control", scene.path)


def link_to_socket(scene: Scene) -> None:
    clear(scene)
    os.symlink(scene.roots / "control", scene.path)


def another_directory_for_a_while(scene: Scene) -> None:
    if scene.path.parent.is_symlink():
        os.unlink(scene.path.parent)
        os.rename(scene.site / "away", scene.path.parent)
    else:
        another_directory(scene)


ATTACKS = [
    *(link, dangling, hard_link, hard_link_to_socket, link_to_socket, pipe),
    *(another_directory, another_directory_for_a_while),
]


UNDO = {another_directory: lambda _: None, another_directory_for_a_while: another_directory_for_a_while}


class Meddler:
    """The module ``os`` with somebody who attacks before call number *at*, and again before number *again*."""

    def __init__(self, attack: Callable[[], None], undo: Callable[[], None], at: int, again: int) -> None:
        self._attack = attack
        self._undo = undo
        self._at = at
        self._again = again
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(os, name)
        if not callable(found) or isinstance(found, type) or name in {"fsdecode", "fspath", "urandom", "strerror"}:
            return found

        def call(*args: Any, **options: Any) -> Any:
            self.calls += 1
            who = os.geteuid()
            os.seteuid(0)
            try:
                if self.calls == self._at:
                    self._attack()
                elif self.calls == self._again:
                    self._undo()
            finally:
                os.seteuid(who)
            return found(*args, **options)

        return call


def append_as_root(scene: Scene) -> None:
    append(scene, None)


def append_for_nobody(scene: Scene) -> None:
    append(scene, nobody())


def append_again(scene: Scene) -> None:
    append(scene, None)


def append(scene: Scene, later: Identity | None) -> None:
    descriptor = open_to_append(str(scene.path), later)
    os.write(descriptor, b"line\n")
    os.close(descriptor)


def replaced(scene: Scene) -> None:
    os.close(replace(str(scene.path), b"1\n"))


def listens(scene: Scene) -> None:
    sock, _ = bind_unix(str(scene.path), 0o666, 5, (nobody().uid, nobody().gid))
    sock.close()


def removed(scene: Scene) -> None:
    with Place.of(str(scene.path)) as place:
        if place.file() is not None:
            place.unlink()


# How many calls may lie between the attack and its end, unless it stays. What waits for the right moment needs few.
REACH = [2, pytest.param(1000, marks=pytest.mark.wide)]
USES = [append_as_root, append_for_nobody, append_again, replaced, listens, removed]


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("reach", REACH)
def test_root_is_not_led_astray(
    attack: Callable[[Scene], None], use: Callable[[Scene], None], reach: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    at, again = 0, 0
    while True:
        with tempfile.TemporaryDirectory(dir=PLACE) as name:
            scene = Scene(Path(name))
            if use is append_again:
                scene.path.write_text("")  # of an earlier run
            undo = UNDO.get(attack, clear)
            meddler = Meddler(lambda: attack(scene), lambda: undo(scene), at, again)  # noqa: B023 - used at once
            monkeypatch.setattr(files, "os", meddler)
            if at == 0:
                attack(scene)
            with contextlib.suppress(OSError, ValueError):
                use(scene)
            monkeypatch.undo()
            scene.listening.close()
            assert scene.state() == scene.before, (at, again)
            assert scene.secret.read_text() == "secret\n"
            assert os.geteuid() == 0
        again = again + 1 if again - at < reach else max(again + 1, meddler.calls)
        if again > meddler.calls:
            at += 1
            again = at + 1
            if at > meddler.calls:
                return


# --- what is said -----------------------------------------------------------------------------------------------------


def refusal(path: Path, later: Identity | None = None) -> str:
    with pytest.raises(OSError) as caught:
        open_to_append(str(path), later)
    return caught.value.strerror


@pytest.mark.parametrize("later", [None, nobody()], ids=["root", "nobody"])
def test_a_refusal_says_what_where_and_what_to_do(scene: Scene, later: Identity | None) -> None:
    where = f"nobody may write to {scene.path.parent}"
    link(scene)
    assert refusal(scene.path, later) == f"{scene.path} is a link, and {where}; remove it, or name what it leads to"
    pipe(scene)
    assert refusal(scene.path, later) == f"it is no regular file, and {where}; remove it"
    hard_link(scene)
    if later is None:
        assert refusal(scene.path) == f"it has other names (hard links), and {where}; remove it"
    else:
        said = "nobody may not write to this file; remove it, or give it to nobody"
        assert refusal(scene.path, later) == said
    another_directory(scene)
    assert refusal(scene.path, later) == (
        f"{scene.path.parent} is a link, and nobody may write to {scene.site}; remove it, or name what it leads to"
    )


def test_somebody_else_does_not_get_to_read_the_log(scene: Scene) -> None:
    scene.path.write_text("")
    daemon = pwd.getpwnam("daemon").pw_uid
    os.chown(scene.path, daemon, -1)
    assert refusal(scene.path) == f"it is daemon's, and nobody may write to {scene.path.parent}; remove it"


def test_groups_and_everybody_are_somebody(scene: Scene) -> None:
    for mode, who in ((0o775, "group daemon"), (0o777, "everybody"), (0o1777, "everybody")):
        os.chown(scene.path.parent, 0, pwd.getpwnam("daemon").pw_gid)
        os.chmod(scene.path.parent, mode)
        link(scene)
        assert f"a link, and {who} may write to {scene.path.parent};" in refusal(scene.path, nobody())


# --- what works -------------------------------------------------------------------------------------------------------


def owner(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_uid, status.st_gid


def test_roots_directory(scene: Scene) -> None:
    """A new file is given to the later user; one that was there stays root's; root's links are followed."""
    new = scene.roots / "new"
    append(scene_at(scene, new), nobody())
    assert owner(new) == (nobody().uid, nobody().gid)
    append(scene_at(scene, scene.secret), nobody())
    assert owner(scene.secret) == (0, 0)
    assert scene.secret.read_text() == "secret\nline\n"
    os.symlink("../roots", scene.roots / "again")
    os.symlink("again/new", scene.roots / "one")
    os.symlink(scene.roots / "one", scene.roots / "two")
    append(scene_at(scene, scene.roots / "two"), nobody())
    assert new.read_text() == "line\nline\n"


def test_a_link_of_roots_into_a_users_directory(scene: Scene) -> None:
    os.symlink(scene.path.parent, scene.roots / "logs")
    append(scene_at(scene, scene.roots / "logs" / "log"), nobody())
    assert owner(scene.path) == (nobody().uid, nobody().gid)
    link(scene)
    said = refusal(scene_at(scene, scene.roots / "logs" / "log").path)
    assert said.startswith(f"{scene.site / 'logs' / 'log'} is a link")


def test_a_directory_of_the_user(scene: Scene) -> None:
    for _ in range(2):
        append_for_nobody(scene)
    assert scene.path.read_text() == "line\nline\n"
    assert owner(scene.path) == (nobody().uid, nobody().gid)
    append_as_root(scene)


def test_a_directory_of_a_third_party(scene: Scene) -> None:
    """As /var/log of root and group syslog: the server's user may not make files there, but root may."""
    os.chown(scene.path.parent, 0, pwd.getpwnam("daemon").pw_gid)
    os.chmod(scene.path.parent, 0o775)
    for _ in range(2):
        append_for_nobody(scene)
    assert scene.path.read_text() == "line\nline\n"
    assert owner(scene.path) == (nobody().uid, nobody().gid)
    os.chown(scene.path, 0, 0)
    append_for_nobody(scene)
    assert owner(scene.path) == (0, 0)
    hard_link(scene)
    assert "hard links" in refusal(scene.path, nobody())


def test_where_everybody_may_write(scene: Scene) -> None:
    os.chown(scene.path.parent, 0, 0)
    os.chmod(scene.path.parent, 0o1777)
    append_for_nobody(scene)
    assert owner(scene.path) == (nobody().uid, nobody().gid)
    append_for_nobody(scene)


def test_standard_streams_by_name(scene: Scene, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("/dev/stderr", "/proc/self/fd/2", "/dev/fd/2"):
        os.close(open_to_append(name, nobody()))
    reading, writing = os.pipe()
    descriptor = open_to_append(f"/dev/fd/{writing}", nobody())
    os.write(descriptor, b"line\n")
    assert os.read(reading, 10) == b"line\n"
    assert os.get_blocking(descriptor)
    for number in (reading, writing, descriptor):
        os.close(number)


def test_paths_that_lead_nowhere(scene: Scene) -> None:
    os.symlink("self", scene.roots / "self")
    os.symlink("../site", scene.roots / "directory")
    for path, code in (
        (scene.roots / "self", errno.ELOOP),
        (scene.roots / "self" / "log", errno.ELOOP),
        (scene.roots / "directory", errno.EISDIR),
        (scene.secret / "log", errno.ENOTDIR),
        (scene.roots / "none" / "log", errno.ENOENT),
        (scene.roots, errno.EISDIR),
        (Path("/"), errno.EISDIR),
    ):
        with pytest.raises(OSError) as caught:
            open_to_append(str(path), nobody())
        assert caught.value.errno == code, path


def test_rights_come_back(scene: Scene) -> None:
    before = os.getresuid(), os.getresgid(), os.getgroups()
    with pytest.raises(KeyError), acting_as(nobody()):
        assert (os.geteuid(), os.getegid(), os.getgroups()) == (nobody().uid, nobody().gid, [nobody().gid])
        raise KeyError
    assert (os.getresuid(), os.getresgid(), os.getgroups()) == before


def test_nothing_stays_open(scene: Scene) -> None:
    before = len(os.listdir("/proc/self/fd"))
    append_for_nobody(scene)
    replaced(scene)
    link(scene)
    refusal(scene.path)
    pipe(scene)
    refusal(scene.path, nobody())
    listening = str(scene.site / "sock")
    bind_unix(listening, 0o600, 5)[0].close()
    assert len(os.listdir("/proc/self/fd")) == before


def scene_at(scene: Scene, path: Path) -> Scene:
    scene.path = path
    return scene


# --- the pid file -----------------------------------------------------------------------------------------------------


def test_a_pid_file_touches_no_file_that_has_its_name(scene: Scene) -> None:
    for attack in (link, dangling):
        attack(scene)
        file = PidFile(str(scene.path))
        assert not scene.path.is_symlink()
        assert scene.path.read_text() == f"{os.getpid()}\n"
        assert stat.S_IMODE(scene.path.stat().st_mode) == 0o644
        file.remove()
        assert not scene.path.exists()
        assert scene.state() == scene.before
