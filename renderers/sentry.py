"""Keeps a browser from outliving its job, whatever ends the job.

Started as `python -m renderers.sentry PROFILE MEMORY IN_FD OUT_FD COMMAND...`. Between the job and the browser, in a
session of its own: it starts the browser without any network, watches the memory of the whole process tree, and when
the job closes its end of standard input (by intention, by a crash or by SIGKILL) or the browser ends, it kills every
descendant and removes the profile. Exit status: 0, or OUT_OF_MEMORY.

Started by root, it stays root and runs the browser as nobody, with the browser's own sandbox where the system allows.
"""

import os
import select
import shutil
import signal
import sys
import time
from dataclasses import dataclass

from renderers import confine

OUT_OF_MEMORY = 86
_POLL_SECONDS = 0.25
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Allowed:
    """What the system lets a browser be: the user it shall run as, and inside its own sandbox."""

    unprivileged: bool
    sandboxed: bool


def allowed(executable: str, profile: str) -> Allowed:
    """Try it in a child: run `executable` and write to `profile` unprivileged, open the namespaces of a sandbox."""
    child = os.fork()
    if child == 0:
        outcome = 0
        try:
            confine.become_nobody()
            outcome = 1 * (os.access(executable, os.X_OK) and os.access(profile, os.W_OK))
            outcome |= 2 * confine.may_open_namespaces()
        finally:
            os._exit(outcome)
    outcome = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return Allowed(unprivileged=bool(outcome & 1), sandboxed=outcome == 3)


def main() -> None:
    """Start the browser and wait for its end or the job's."""
    profile, memory, reads, writes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    confine.adopt_orphans()
    confine.drop_network()
    status = 0
    try:
        browser = _start(sys.argv[5:], reads, writes, allowed(sys.argv[5], profile))
        status = _watch(browser, memory)
    finally:
        _kill_descendants()
        shutil.rmtree(profile, ignore_errors=True)
    sys.exit(status)


def _start(command: list[str], reads: int, writes: int, may: Allowed) -> int:
    """Run the command with the pipe on file descriptors 3 and 4, as --remote-debugging-pipe wants it."""
    if not may.sandboxed:
        command = [command[0], "--no-sandbox", *command[1:]]
    sentry = os.getpid()
    browser = os.fork()
    if browser == 0:
        try:
            if may.unprivileged:
                confine.become_nobody()
            confine.die_with_parent(sentry)
            reads, writes = os.dup(reads), os.dup(writes)  # out of the way, should they be 3 and 4 in another order
            nothing = os.open(os.devnull, os.O_RDWR)
            for standard in (0, 1, 2):
                os.dup2(nothing, standard)
            os.dup2(reads, 53), os.dup2(writes, 54)
            os.dup2(53, 3), os.dup2(54, 4)
            os.closerange(5, 1024)
            os.execv(command[0], command)
        finally:
            os._exit(127)
    os.close(reads), os.close(writes)  # else the job would never see the browser's end of them close
    return browser


def _watch(browser: int, memory: int) -> int:
    while True:
        ready, _, _ = select.select([0], [], [], _POLL_SECONDS)
        if ready and not os.read(0, 4096):
            return 0
        if _reap(browser):
            return 0
        if sum(resident_bytes(process) for process in descendants(os.getpid())) > memory:
            return OUT_OF_MEMORY


def _reap(browser: int) -> bool:
    """Reap what has ended; tell whether the browser has."""
    ended = False
    try:
        while (process := os.waitpid(-1, os.WNOHANG)[0]) != 0:
            ended = ended or process == browser
    except ChildProcessError:
        return True
    return ended


def _kill_descendants() -> None:
    """Kill until none is left: a process may fork between the listing and the signal."""
    give_up = time.monotonic() + 10
    while (left := descendants(os.getpid())) and time.monotonic() < give_up:
        for process in left:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        _reap(0)
        time.sleep(0.02)


def descendants(root: int) -> list[int]:
    """Return the ids of all processes below `root`, from /proc."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (parent := _parent(int(entry))) is not None:
            children.setdefault(parent, []).append(int(entry))
    found, todo = [], [root]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def _parent(process: int) -> int | None:
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return None


def resident_bytes(process: int) -> int:
    """Memory that is this process's own: resident less shared, so that a tree's sum counts nothing twice."""
    try:
        with open(f"/proc/{process}/statm", "rb") as file:
            _, resident, shared, *_ = map(int, file.read().split())
            return (resident - shared) * _PAGE
    except (OSError, ValueError):
        return 0


if __name__ == "__main__":
    main()
