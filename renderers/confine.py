"""Confinement of processes that chew hostile input: locked up before the first byte, no life after their parent.

Linux only, through libc. `lock_up` is the sandbox of our own parsers: what runs behind it can compute and answer on
one socket, nothing else. The sentry of the browser, which brings a sandbox of its own, uses the smaller pieces.
"""

import contextlib
import ctypes
import os
import resource
import signal
import time

from renderers import landlock, seccomp

NOBODY = 65534
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 36, 38
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


class NotConfined(Exception):
    """The system refuses a wall of the sandbox; the message says which. Better no parser than one that can get out."""


def lock_up(descriptor: int, parent: int, memory: int) -> dict:
    """Leave this process computing and one open file, `descriptor`; return the walls that stand. Raises NotConfined.

    Call it with a single thread, since the locks bind the calling one, and with every module imported.
    """
    stand = {}
    walls = {
        "unprivileged user": become_nobody,
        "death with the job": lambda: die_with_parent(parent),
        "files closed": lambda: _close_all_but(descriptor),
        "one thread": _refuse_threads,
        "limits": lambda: limit_process(memory),
        "Landlock": landlock.lock,
        "no new files": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0)),
        "seccomp": seccomp.lock,
    }
    for name, build in walls.items():
        try:
            stand[name] = build()
        except (OSError, ValueError) as error:
            raise NotConfined(f"{name}: {error}") from error
    return stand


def become_nobody() -> int:
    """Give up root, if this is root, for an unprivileged user without groups; return the user's id."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    return os.geteuid()


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends; `parent` is the expected parent's id.

    A change of user undoes it.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the line above
        os.kill(os.getpid(), signal.SIGKILL)


def adopt_orphans() -> None:
    """Become the parent of all descendants whose own parent ends."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)


def drop_network() -> bool:
    """Move into a network namespace that has no interface, not even loopback; False where the system refuses."""
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if _libc.unshare(_CLONE_NEWNET) == 0:
        return True
    user, group = os.geteuid(), os.getegid()
    if _libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        return False
    # The same user within: nobody's process may make no namespace of its own, and a browser needs one for its sandbox.
    for name, line in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with contextlib.suppress(OSError), open(f"/proc/self/{name}", "w") as file:
            file.write(line)
    return True


def may_open_namespaces() -> bool:
    """Tell whether the system lets this process open a user namespace; the process is in it from then on."""
    return _libc.unshare(_CLONE_NEWUSER) == 0


def limit_process(memory: int) -> None:
    """Cap the address space; no bytes into files, no core dump, no new process, no privileges to gain."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    for kind in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE, resource.RLIMIT_NPROC):
        resource.setrlimit(kind, (0, 0))
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def limit_cpu(seconds: float) -> None:
    """Have the kernel end this process (SIGXCPU) after `seconds` more of CPU time, even inside C code."""
    ceiling = int(time.process_time() + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (ceiling, resource.RLIM_INFINITY))


def cpu_seconds(process: int) -> float:
    """Return the CPU time another process has used, by the kernel's account; OSError when it is gone."""
    return time.clock_gettime((~process << 3) | 2)


def _close_all_but(descriptor: int) -> None:
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in (0, 1, 2, descriptor):
            try:
                os.close(int(name))
            except OSError:  # the one that listed the folder
                continue


def _refuse_threads() -> None:
    if (count := len(os.listdir("/proc/self/task"))) > 1:
        raise OSError(f"{count} threads are running, and the locks bind only one")
