"""A hostile program in place of the PDF parser: it tries what a captured process would, and answers what it could do.

`python -m tests.hostile_parser SOCKET_FD PARENT_PID` is `renderers.pdf_worker` with its `open_pdf` replaced: the
"document" is JSON that names a playground of files and sockets, the answer a refusal whose detail lists what worked.
"""

import ctypes
import errno
import importlib
import json
import mmap
import os
import platform
import resource
import signal
import socket
import threading
from functools import partial

from renderers import pdf_worker
from renderers.page import BadDocument

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_X86 = platform.machine() == "x86_64"
_AT_FDCWD = -100
# Numbers that only this file needs; (x86-64, aarch64).
_CALLS = {
    "unshare": (272, 97), "io_uring_setup": (425, 425), "memfd_create": (319, 279), "pidfd_open": (434, 434),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "keyctl": (250, 219),
    "process_vm_readv": (310, 270), "ptrace": (101, 117), "shmget": (29, 194), "msgget": (68, 186),
    "landlock_create_ruleset": (444, 444), "syslog": (103, 116), "uname": (63, 160), "sysinfo": (99, 179),
    "inotify_init1": (294, 26), "openat2": (437, 437), "execveat": (322, 281), "statx": (332, 291), "mount": (165, 40),
    "kcmp": (312, 272), "setpriority": (141, 140),
}  # fmt: skip


def _call(name: str, *arguments) -> int:
    number = _CALLS[name][0 if _X86 else 1]
    return _checked(_libc.syscall(number, *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]))


def _checked(result: int) -> int:
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _fork(*then) -> None:
    child = os.fork()
    if child == 0:
        try:
            os.execv(*then)
        finally:
            os._exit(1)
    if os.waitpid(child, 0)[1]:
        raise OSError(errno.EPERM, "the program did not run")


def _connect(family: int, address, kind: int = socket.SOCK_STREAM) -> None:
    with socket.socket(family, kind) as made:
        made.settimeout(5)
        made.connect(address)


def _listen() -> None:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        made.listen()


def _thread() -> None:
    started = threading.Thread(target=int)
    try:
        started.start()
    except RuntimeError as error:
        raise OSError(errno.EPERM, str(error)) from None
    started.join()


def _map(protection: int, file: int = -1) -> int:
    flags = mmap.MAP_PRIVATE | (mmap.MAP_ANONYMOUS if file < 0 else 0)
    where = _libc.mmap(None, ctypes.c_size_t(4096), protection, flags, file, 0)
    if where == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "mmap")
    return where


def _make_executable() -> None:
    where = _map(mmap.PROT_READ | mmap.PROT_WRITE)
    _checked(_libc.mprotect(ctypes.c_void_p(where), ctypes.c_size_t(4096), mmap.PROT_READ | mmap.PROT_EXEC))


def _read_parent(parent: int) -> None:
    buffer = ctypes.create_string_buffer(8)
    local, remote = (ctypes.c_uint64 * 2)(ctypes.addressof(buffer), 8), (ctypes.c_uint64 * 2)(id(parent), 8)
    try:
        _call("process_vm_readv", parent, local, 1, remote, 1, 0)
    except OSError as error:
        if error.errno != errno.EFAULT:  # let in, at an address that the parent does not map
            raise


def _become_another_program() -> None:
    try:
        _call("execveat", _AT_FDCWD, b"/nonexistent", None, None, 0)
    except FileNotFoundError:  # let in, at a program that is not there
        return


def _parent_cpu_clock(parent: int) -> None:
    import time

    time.clock_gettime((~parent << 3) | 2)


def _signal_by_descriptor(answers: int, parent: int) -> None:
    import fcntl

    fcntl.fcntl(answers, fcntl.F_SETOWN, parent)


def _send_descriptor(answers: int) -> None:
    try:
        _checked(_libc.sendmsg(answers, None, 0))
    except OSError as error:
        if error.errno != errno.EFAULT:  # let in, with no message
            raise


def _stat(path: str) -> None:
    os.stat(path)


def _append(path: str) -> None:
    with open(path, "a") as file:
        file.write("more")


def attempts(play: dict) -> dict:
    """What is tried, by name: `play` holds a folder with files, a Unix socket, ports, the job's process id."""
    folder, parent, answers = play["folder"], play["parent"], play["answers"]
    path = partial(os.path.join, folder)
    return {
        "read a file of the system": partial(open, "/etc/passwd"),
        "read a file of the job": partial(open, path("read")),
        "read a file left open (mmap)": partial(_map, mmap.PROT_READ, LEFT_OPEN),
        "list a folder": partial(os.listdir, "/"),
        "ask whether a file exists (stat)": partial(_stat, path("read")),
        "ask whether a file exists (statx)": lambda: _call(
            "statx", _AT_FDCWD, path("read").encode(), 0, 0xFFF, ctypes.create_string_buffer(256)
        ),
        "ask whether a file exists (access)": lambda: _checked(_libc.access(path("read").encode(), 0)),
        "open with openat2": lambda: _call(
            "openat2", _AT_FDCWD, path("read").encode(), (ctypes.c_uint64 * 3)(0, 0, 0), 24
        ),
        "see its working folder": os.getcwd,
        "change to another folder": partial(os.chdir, "/"),
        "create a file": lambda: os.close(os.open(path("created"), os.O_CREAT | os.O_WRONLY)),
        "write to a file": partial(_append, path("append")),
        "truncate a file": partial(os.truncate, path("truncate"), 0),
        "remove a file": partial(os.unlink, path("unlink")),
        "rename a file": partial(os.rename, path("rename"), path("renamed")),
        "link to a file": partial(os.link, path("read"), path("linked")),
        "make a symbolic link": partial(os.symlink, "/etc/passwd", path("symlink")),
        "make a folder": partial(os.mkdir, path("made")),
        "change a file's mode": partial(os.chmod, path("chmod"), 0o777),
        "change a file's times": partial(os.utime, path("chmod"), (1, 1)),
        "make a named pipe": partial(os.mkfifo, path("fifo")),
        "mount": lambda: _call("mount", b"none", path("mount").encode(), b"tmpfs", 0, 0),
        "connect by TCP": partial(_connect, socket.AF_INET, ("127.0.0.1", play["tcp"])),
        "listen on TCP": _listen,
        "open a UDP socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close(),
        "connect to a Unix socket": partial(_connect, socket.AF_UNIX, play["unix"]),
        "connect to an abstract Unix socket": partial(_connect, socket.AF_UNIX, play["abstract"]),
        "open a netlink socket": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
        "pass a descriptor to the job": partial(_send_descriptor, answers),
        "start a process": partial(_fork, "/bin/true", ["true"]),
        "fork": lambda: os.waitpid(os.fork() or os._exit(0), 0),
        "start a thread": _thread,
        "become another program": _become_another_program,
        "signal the job": partial(os.kill, parent, 0),
        "signal another process of its user": lambda: os.kill(play["fellow"], 0),
        "have the kernel signal the job (F_SETOWN)": partial(_signal_by_descriptor, answers, parent),
        "trace the job": lambda: _call("ptrace", 0x4206, parent, 0, 0),
        "read the job's memory": partial(_read_parent, parent),
        "hold the job by a pidfd": lambda: os.close(_call("pidfd_open", parent, 0)),
        "read the job's CPU clock": partial(_parent_cpu_clock, parent),
        "change the job's limits": lambda: resource.prlimit(
            parent, resource.RLIMIT_CORE, resource.prlimit(parent, resource.RLIMIT_CORE)
        ),
        "set a limit of its own": lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)),
        "lift its own memory limit": lambda: resource.setrlimit(resource.RLIMIT_AS, (-1, -1)),
        "lift its own file limit": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1)),
        "ignore the end of its CPU time": lambda: signal.signal(signal.SIGXCPU, signal.SIG_IGN),
        "block the end of its CPU time": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGXCPU]),
        "survive the job (PDEATHSIG)": lambda: _checked(_libc.prctl(1, 0, 0, 0, 0)),
        "become root": partial(os.setresuid, 0, 0, 0),
        "raise its priority": lambda: _call("setpriority", 0, 0, -1),
        "make executable memory (mmap)": partial(_map, mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC),
        "make memory executable (mprotect)": _make_executable,
        "open new namespaces": lambda: _call("unshare", 0x10000000),
        "make a file in memory": lambda: os.close(_call("memfd_create", b"x", 0)),
        "open a pipe": lambda: [os.close(end) for end in os.pipe()],
        "open a pair of sockets": socket.socketpair,
        "duplicate a descriptor": lambda: os.close(os.dup(answers)),
        "watch files": lambda: os.close(_call("inotify_init1", 0)),
        "use io_uring": lambda: os.close(_call("io_uring_setup", 1, ctypes.create_string_buffer(120))),
        "load BPF": lambda: _call("bpf", 0, ctypes.create_string_buffer(128), 128),
        "use perf": lambda: os.close(_call("perf_event_open", ctypes.create_string_buffer(128), 0, -1, -1, 0)),
        "use userfaultfd": lambda: os.close(_call("userfaultfd", 1)),
        "use the kernel's key rings": lambda: _call("keyctl", 0, -3, 1),
        "share memory (System V)": lambda: _call("shmget", 0, 4096, 0o1600),
        "send messages (System V)": lambda: _call("msgget", 0, 0o1600),
        "read the kernel's log": lambda: _call("syslog", 10, 0, 0),
        "compare processes": lambda: _call("kcmp", parent, parent, 0, 0, 0),
        "learn the machine's name": lambda: _call("uname", ctypes.create_string_buffer(390)),
        "learn the machine's load": lambda: _call("sysinfo", ctypes.create_string_buffer(128)),
        "set up rules of its own": lambda: _call("landlock_create_ruleset", 0, 0, 1),
        "use another call convention (x32)": lambda: _checked(_libc.syscall(0x40000000 + 39)),
    }  # fmt: skip


def _try(attempt) -> str:
    try:
        attempt()
    except OSError as error:
        return errno.errorcode.get(error.errno, "refused")
    except ValueError as error:
        return str(error)
    return "done"


def open_pdf(data: bytes):
    """Try everything (or the one thing that is asked for) and answer with the outcomes; a PDF is the rehearsal's."""
    if data.startswith(b"%PDF"):
        return HONEST(data)
    play = json.loads(data)
    if "abort" in play:
        os.abort()
    if "import" in play:
        importlib.import_module(play["import"])
    if "say" in play:
        raw = bytes.fromhex(play["say"])
        _checked(_libc.send(ANSWERS, raw, ctypes.c_size_t(len(raw)), 0))
    while "spin" in play:
        continue
    tried = attempts(play | {"answers": ANSWERS})
    wanted = [play["only"]] if "only" in play else [name for name in tried if name not in play["without"]]
    raise BadDocument("report", json.dumps({name: _try(tried[name]) for name in wanted}))


if __name__ == "__main__":
    import sys

    ANSWERS, LEFT_OPEN = int(sys.argv[1]), os.open(__file__, os.O_RDONLY)
    HONEST, pdf_worker.open_pdf = pdf_worker.open_pdf, open_pdf
    pdf_worker.main()
