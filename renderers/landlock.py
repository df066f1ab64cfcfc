"""Landlock: no file, no TCP port, no signal and no abstract socket outside of this process, for good."""

import ctypes
import os
import struct

_CREATE_RULESET, _RESTRICT_SELF, _ASK_VERSION = 444, 446, 1  # the numbers are the same on every architecture
# By the version that brought them: file rights (13, then rename across folders, truncate, device ioctl).
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_TCP_RIGHTS, _SCOPES = 3, 3  # bind and connect, since version 4; abstract sockets and signals, since version 6

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def version() -> int:
    """Return the kernel's version of Landlock; 0 where it has none, or a container forbids asking."""
    return max(0, _libc.syscall(*map(ctypes.c_long, (_CREATE_RULESET, 0, 0, _ASK_VERSION))))


def lock() -> int:
    """Bind this thread to a rule set without rules; return Landlock's version, 0 where there is none to lock with."""
    if (found := version()) == 0:
        return 0
    rights = [(1 << _FILE_RIGHTS[min(found, 5)]) - 1]
    rights += [_TCP_RIGHTS] if found >= 4 else []
    rights += [_SCOPES] if found >= 6 else []
    attributes = struct.pack(f"={len(rights)}Q", *rights)
    ruleset = _checked(_libc.syscall(ctypes.c_long(_CREATE_RULESET), attributes, ctypes.c_long(len(attributes)), 0))
    try:
        _checked(_libc.syscall(ctypes.c_long(_RESTRICT_SELF), ctypes.c_long(ruleset), ctypes.c_long(0)))
    finally:
        os.close(ruleset)
    return found


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
