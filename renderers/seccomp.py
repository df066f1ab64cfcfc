"""A seccomp filter: the few system calls with which a process can compute and answer, everything else refused.

The filter is classic BPF, written here as data: libseccomp's bindings need a library that few machines have. It checks
the architecture, so that the numbers mean what they say, and kills what comes by another convention (32-bit, x32).
"""

import ctypes
import os
import platform
import struct

# (x86-64, aarch64). Measured: what rendering and encoding a page ask for, and what reports a crash by its name.
_ALLOWED = {
    "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215), "mremap": (25, 216), "brk": (12, 214),
    "madvise": (28, 233), "futex": (202, 98), "sendto": (44, 206), "recvfrom": (45, 207), "clock_gettime": (228, 113),
    "prlimit64": (302, 261), "getrandom": (318, 278), "sched_yield": (24, 124), "getpid": (39, 172),
    "gettid": (186, 178), "tgkill": (234, 131), "rt_sigreturn": (15, 139), "restart_syscall": (219, 128),
    "close": (3, 57), "exit": (60, 93), "exit_group": (231, 94),
}  # fmt: skip
_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32 = 0x40000000
_PROT_EXEC, _RLIMIT_CPU, _SIGABRT, _NAMED_CLOCKS = 4, 0, 6, 16

_PR_SET_SECCOMP, _FILTER = 22, 2
_KILL, _ERRNO, _ALLOW, _EPERM = 0x80000000, 0x00050000, 0x7FFF0000, 1
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data

_libc = ctypes.CDLL(None, use_errno=True)


def lock() -> None:
    """Bind this thread, for good and without privileges to gain, to the allowed calls. OSError where refused."""
    program = b"".join(struct.pack("=HBBI", *instruction) for instruction in _program(platform.machine(), os.getpid()))
    buffer = ctypes.create_string_buffer(program, len(program))
    head = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer)))
    if _libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_FILTER), head, ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def _program(machine: str, pid: int) -> list[tuple[int, int, int, int]]:
    if machine not in _AUDIT:
        raise OSError(f"no table of system calls for {machine}, only for {' and '.join(_AUDIT)}")
    column = list(_AUDIT).index(machine)
    found = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, _AUDIT[machine]), (_RETURN, 0, 0, _KILL)]
    found += [(_LOAD, 0, 0, _NUMBER), (_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _KILL)]
    conditions = _conditions(pid)
    for name, numbers in _ALLOWED.items():
        block = [check for condition in conditions.get(name, ()) for check in _check(*condition)]
        block.append((_RETURN, 0, 0, _ALLOW))
        found += [(_EQUAL, 0, len(block), numbers[column]), *block]
    return [*found, (_RETURN, 0, 0, _ERRNO | _EPERM)]


def _conditions(pid: int) -> dict[str, list[tuple[int, int, int, bool]]]:
    """What must hold of a call's arguments: (argument, test, operand, wanted outcome), on the lower 32 bits."""
    return {
        "mmap": [(2, _ANY_BIT, _PROT_EXEC, False)],
        "mprotect": [(2, _ANY_BIT, _PROT_EXEC, False)],
        "sendto": [(5, _EQUAL, 0, True)],  # no address: to the other end of the socket alone
        "clock_gettime": [(0, _AT_LEAST, _NAMED_CLOCKS, False)],  # the rest are clocks of other processes
        "prlimit64": [(0, _EQUAL, 0, True), (1, _EQUAL, _RLIMIT_CPU, True)],  # its own, renewed for every page
        "tgkill": [(0, _EQUAL, pid, True), (2, _EQUAL, _SIGABRT, True)],
    }


def _check(argument: int, test: int, operand: int, wanted: bool) -> list[tuple[int, int, int, int]]:
    """Refuse unless the test's outcome on the argument is the wanted one."""
    jumps = (1, 0) if wanted else (0, 1)
    load = (_LOAD, 0, 0, _ARGUMENTS + 8 * argument)
    return [load, (test, *jumps, operand), (_RETURN, 0, 0, _ERRNO | _EPERM)]
