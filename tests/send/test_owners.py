"""Whose rings `send` touches, and with whose rights: root on a user's files, and a user on another one's."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import stat
from collections.abc import Iterator
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from otel_train.catalogue import cluster_name, rows
from otel_train.ring import Kind, take_lock
from otel_train.send import send_rings
from otel_train.send.owner_process import OwnerProcess
from otel_train.send.owners import Unusable, by_owner, ring_directories
from otel_train.send.send_rings import MOST_AT_ONCE
from otel_train.testing import OtlpReceiver
from tests.support.otlp_http import Response, serving_http
from tests.support.otlp_store import points_of
from tests.support.rank_ring import Rank, time_of
from tests.support.send_command import begin, end, send
from tests.support.waiting import wait_until

PICKS = cluster_name(rows.PICKS.name)
USER, OTHER = 23001, 23002

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def leave(run: Path, uid: int, *steps: int) -> Path:
    """Leave a user's ring behind, and return its path."""
    run.mkdir(mode=0o700, exist_ok=True)
    rank = Rank(run)
    rank.record(*steps, kind=Kind.CLUSTER)
    rank.ring.close(max(steps), 0)
    rank.ring.release()
    for path in (run, rank.ring.path):
        os.chown(path, uid, uid, follow_symlinks=False)
    return rank.ring.path


@contextlib.contextmanager
def hung_up(path: Path) -> Iterator[None]:
    """Have a mount there whose server has gone, as of sshfs after its process was killed."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        server = os.open("/dev/fuse", os.O_RDWR)
    except OSError as error:
        pytest.skip(f"this machine has no FUSE: {error}")
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0".encode()
    failed = libc.mount(b"gone", bytes(path), b"fuse", 0, options)
    os.close(server)
    if failed:
        pytest.skip(f"this process may not mount: {os.strerror(ctypes.get_errno())}")
    try:
        yield
    finally:
        libc.umount2(bytes(path), 2)


def test_root_sends_as_owner(base: Path, receiver: OtlpReceiver) -> None:
    """Root delivers the rings of several users in one directory; what that makes is theirs."""
    for name, uid, step in (("a", USER, 1), ("b", OTHER, 2), ("c", 0, 3)):
        leave(base / name, uid, step)
    outcome = send(base)
    assert (outcome.code, outcome.states, sorted(receiver.values(PICKS))) == (0, ["delivered"] * 3, [1, 2, 3])
    owners = {path.stat().st_uid for path in (base / "a").iterdir()}
    assert (owners, {path.stat().st_uid for path in (base / "c").iterdir()}) == ({USER}, {0})


def test_root_sends_users_base(base: Path, receiver: OtlpReceiver) -> None:
    """A directory of a user's with folders of rings is gone through as that user."""
    jobs = base / "otel_train-user"
    jobs.mkdir(mode=0o700)
    os.chown(jobs, USER, USER)
    for name, step in (("one", 1), ("two", 2)):
        leave(jobs / name, USER, step)
    leave(jobs / "planted", OTHER, 3)
    assert (send(jobs).code, sorted(receiver.values(PICKS))) == (0, [1, 2])


def test_clean_removes_delivered_rings(base: Path, receiver: OtlpReceiver) -> None:
    """After an epilog's `--clean` only what is not delivered, or still used, is there."""
    delivered, damaged = leave(base / "done", USER, 1), leave(base / "damaged", USER, 2).with_name("junk.ring")
    damaged.write_bytes(b"junk")
    os.chown(damaged, USER, USER)
    (base / "live").mkdir(mode=0o700)
    live = Rank(base / "live")
    live.record(3)
    outcome = send("--clean", base)
    freed = {Path(sent["directory"]).name: sent["freed"] > 0 for sent in outcome.figures["directories"]}
    assert (outcome.code, freed) == (1, {"done": True, "damaged": False, "live": False})
    assert (list(delivered.parent.iterdir()), live.ring.path.exists(), len(receiver.values(PICKS))) == ([], True, 3)


@pytest.mark.usefixtures("receiver")
@pytest.mark.parametrize("name", ["rank00009-1.ring", "sidecar.lock", "sidecar.status", "sidecar.status.new"])
def test_planted_link_leads_nowhere(name: str, base: Path) -> None:
    """A user's link beside the rings leads root to no file that the user may not open, and makes none."""
    secret, new = leave(base / "secret", 0, 1), base / "made"
    before = secret.read_bytes()
    leave(base / "run", USER, 2)
    for link, target in ((name, secret), (f"rank00008-1{Path(name).suffix}", new)):
        (base / "run" / link).symlink_to(target)
        os.chown(base / "run" / link, USER, USER, follow_symlinks=False)
    send("--timeout", "5", base / "run")
    assert (secret.read_bytes() == before, new.exists()) == (True, False)


def test_users_link_to_root_is_refused(base: Path, receiver: OtlpReceiver) -> None:
    """A user's link to a directory of root's is followed as that user; one of root's own is followed."""
    leave(base / "roots", 0, 1)
    for name, uid in (("users", USER), ("own", 0)):
        (base / name).symlink_to(base / "roots")
        os.chown(base / name, uid, uid, follow_symlinks=False)
    refused = send(base / "users")
    assert (refused.code, refused.states, receiver.values(PICKS)) == (1, ["left"], [])
    assert "run the command as that user, or as root" in refused.figures["directories"][0]["reason"]
    assert (send(base / "own").code, receiver.values(PICKS)) == (0, [1])


def test_unusable_folders_are_told(base: Path, receiver: OtlpReceiver) -> None:
    """A folder in a base that can't be read, or is open to others, is named with exit code 1; the others are sent."""
    jobs = base / "jobs"
    jobs.mkdir(mode=0o700)
    os.chown(jobs, USER, USER)
    for name, step in (("locked", 1), ("open", 2), ("run", 3)):
        leave(jobs / name, USER, step)
    (jobs / "locked").chmod(0)
    (jobs / "open").chmod(0o770)
    outcome = send(jobs)
    reasons = {Path(sent["directory"]).name: sent["reason"] for sent in outcome.figures["directories"]}
    assert (outcome.code, receiver.values(PICKS), reasons["run"]) == (1, [3], "")
    assert ("can't be looked at" in reasons["locked"], "others may write" in reasons["open"]) == (True, True)


def test_hung_up_mount_hides_nothing(base: Path, receiver: OtlpReceiver) -> None:
    """A folder that is a mount whose server has gone is named, and hides no other user's rings."""
    (base / "dead").mkdir()
    leave(base / "run", USER, 1)
    leave(base / "roots", 0, 2)
    with hung_up(base / "dead"):
        outcome = send(base)
    assert (outcome.code, sorted(outcome.states)) == (1, ["delivered", "delivered", "left"])
    assert sorted(receiver.values(PICKS)) == [1, 2]


def test_foreign_lock_costs_its_directory(base: Path, receiver: OtlpReceiver) -> None:
    """A lock file that the owner can't open is told of its directory; the owner's others are sent."""
    leave(base / "run", USER, 1)
    leave(base / "other", USER, 2)
    (base / "run" / "sidecar.lock").touch(0o600)
    outcome = send(base / "run", base / "other")
    assert (outcome.code, sorted(outcome.states), receiver.values(PICKS)) == (1, ["delivered", "left"], [2])
    assert any("Permission denied" in sent["reason"] for sent in outcome.figures["directories"])


def test_exchanged_links_lead_nowhere(base: Path) -> None:
    """What a user's link on the way leads to is decided once: an exchange afterwards leads root nowhere else."""
    for name in ("one", "two"):
        (base / name).mkdir()
        leave(base / name / "run", 0, 1)
    link, folder = base / "link", base / "folder"
    link.symlink_to(base / "one")
    folder.mkdir()
    leave(folder / "run", 0, 2)
    os.chown(folder, USER, USER)
    owned, unusable = by_owner([link / "run", folder / "run"])
    link.unlink()
    shutil.move(folder, base / "old")
    for path in (link, folder):
        path.symlink_to(base / "two")
    (first, second) = [path for path, _ in owned[0]]
    assert (ring_directories(first, named=True), unusable) == (([(base / "one" / "run", True)], []), [])
    with pytest.raises(Unusable, match="others may write"):
        ring_directories(second, named=True)


def test_open_directory_sends_folders_only(base: Path, receiver: OtlpReceiver) -> None:
    """In a directory where everybody may write, root sends what is in folders, and nothing that lies there itself."""
    leave(base / "run", USER, 1)
    leave(base, USER, 2)
    os.chown(base, 0, 0)
    base.chmod(0o1777)
    outcome = send(base)
    assert (outcome.code, receiver.values(PICKS)) == (0, [1])


def test_root_avoids_users_parents(base: Path, receiver: OtlpReceiver) -> None:
    """Root's rings in a directory of a user's are not sent: the user can exchange what they are in."""
    os.chown(base, USER, USER)
    leave(base / "run", 0, 1)
    outcome = send(base / "run")
    assert (outcome.code, receiver.values(PICKS)) == (1, [])
    assert "others may write in it or above it" in outcome.figures["directories"][0]["reason"]


def test_waiting_users_make_way(base: Path, receiver: OtlpReceiver) -> None:
    """As many users as are sent at once, who only wait for their sidecars, keep no other user waiting."""
    locks = []
    for number in range(MOST_AT_ONCE):
        leave(base / f"run{number}", USER + number, 1)
        (base / f"run{number}" / "sidecar.lock").touch(0o600)
        os.chown(base / f"run{number}" / "sidecar.lock", USER + number, USER + number)
        locks.append(take_lock(base / f"run{number}"))
    leave(base / "last", USER + MOST_AT_ONCE, 7)
    sending = begin("--timeout", "1000", base)
    wait_until(lambda: receiver.values(PICKS) == [7], what="the last user's rings")
    for lock in locks:
        assert lock is not None
        os.close(lock)
    outcome = end(sending)
    assert (outcome.code, outcome.states) == (0, ["delivered"] * (MOST_AT_ONCE + 1))
    assert (outcome.figures["delivered"], len(receiver.values(PICKS))) == (MOST_AT_ONCE + 1, MOST_AT_ONCE + 1)


@pytest.mark.usefixtures("receiver")
def test_other_user_is_refused(base: Path) -> None:
    """An ordinary user gets a clear error for another one's directory, and the own ones are sent all the same."""
    leave(base / "mine", USER, 1)
    leave(base / "other", OTHER, 2)
    paths = [base / "mine", base / "other"]
    process = OwnerProcess(USER, lambda: [asdict(figures) for figures in send_rings(paths, 20)])
    while not process.read():
        pass
    refused, sent = sorted(process.result(), key=lambda figures: figures["state"], reverse=True)
    assert (sent["state"], refused["state"]) == ("delivered", "left")
    assert refused["reason"] == f"it belongs to uid {OTHER}: run the command as that user, or as root"


def test_roots_secrets_stay_hidden(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user as whom root sends can't read root's environment, which has the receiver's token."""
    leave(base / "run", USER, 1)
    seen: list[tuple[int, int]] = []

    def respond(_: bytes) -> Response:
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # another one has ended meanwhile
                if f"Uid:\t{USER}\t" in (process / "status").read_text():
                    status = (process / "environ").stat()
                    seen.append((status.st_uid, stat.S_IMODE(status.st_mode)))
        return Response()

    with serving_http(monkeypatch, respond):
        assert send(base / "run").code == 0
    assert set(seen) == {(0, 0o400)}


def test_sigterm_reaches_owners(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal to root's process ends those of the users orderly: each tells what is left."""
    for name, uid, step in (("a", USER, 1), ("b", OTHER, 3)):
        leave(base / name, uid, step, step + 1)
    asked = set[int]()

    def respond(body: bytes) -> Response:
        asked.update(point.time_ns for point in points_of(body))
        return Response(503)

    with serving_http(monkeypatch, respond):
        sending = begin("--timeout", "1000", base)
        wait_until(lambda: {time_of(1), time_of(3)} <= asked, 60, "a request of each")
        sending.terminate()
        outcome = end(sending, 100)
    assert (outcome.code, outcome.states, outcome.figures["left"]) == (1, ["left"] * 2, 4)


@pytest.mark.usefixtures("receiver")
def test_early_signal_ends_owner(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal that comes before a user's process has begun to send ends it too."""

    def signalled(*arguments: Any, **options: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return ring_directories(*arguments, **options)

    leave(base / "run", USER, 1)
    monkeypatch.setattr(import_module("otel_train.send.send_rings"), "ring_directories", signalled)
    (figures,) = send_rings([base / "run"], 60)
    assert (figures.state, figures.reason) == ("left", "a signal ended it")


def test_killed_owner_process_is_told() -> None:
    """A user can kill the process that sends the own rings: that is said of them, and of no others."""
    killed = OwnerProcess(USER, lambda: os.kill(os.getpid(), 9))
    while not killed.read():
        pass
    with pytest.raises(ChildProcessError, match=f"the process for uid {USER} has ended with status 9"):
        killed.result()


def test_rights_are_gone_for_good() -> None:
    """A child that has become a user has its groups only, and no way back."""

    def work() -> list[object]:
        with pytest.raises(PermissionError):
            os.setuid(0)
        return [os.getresuid(), os.getresgid(), os.getgroups()]

    process = OwnerProcess(USER, work)
    while not process.read():
        pass
    assert process.result() == [[USER] * 3, [65534] * 3, []]
