"""Errors of the operating system as members of the family."""

from __future__ import annotations

import errno

from blockwire.errors.family import (
    ConfigurationError,
    ConnectionLostError,
    Error,
    MissingFileError,
    NotAllowedError,
    RefusedError,
    TimedOutError,
    UnreachableError,
)

_OS_NEXT = {
    "check the path": (errno.ENOENT, errno.ENOTDIR, errno.EISDIR),
    "check who may use it, and as whom this runs": (errno.EACCES, errno.EPERM),
    "use a place that can be written": (errno.EROFS,),
    "free space there, then do it again": (errno.ENOSPC, errno.EDQUOT),
    "use a file system that takes files of this size": (errno.EFBIG,),
    "raise the number of open files (`ulimit -n`, fs.file-max)": (errno.EMFILE, errno.ENFILE),
    "it is closed: open or redirect it": (errno.EBADF,),
    "check the medium (`dmesg` may say more)": (errno.EIO,),
    "check the address and the route to it": (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ECONNREFUSED),
}
"""What to do about a failed system call."""


def from_os_error(error: OSError, what: str) -> Error:
    """The member of the family that an operating-system error means; ``what`` names what was tried."""
    if isinstance(error, Error):
        return error
    cls: type[Error] = Error
    if isinstance(error, ConnectionRefusedError):
        cls = RefusedError
    elif isinstance(error, TimeoutError):
        cls = TimedOutError
    elif isinstance(error, ConnectionError):
        cls = ConnectionLostError
    elif isinstance(error, FileNotFoundError):
        cls = MissingFileError
    elif isinstance(error, PermissionError):
        cls = NotAllowedError
    elif isinstance(error, NotADirectoryError | IsADirectoryError):
        cls = ConfigurationError
    elif error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN):
        cls = UnreachableError
    advice = next((text for text, numbers in _OS_NEXT.items() if error.errno in numbers), "")
    result = cls.wrap(error, f"{what}: {error.strerror or error}", next=advice)
    if error.errno is not None:
        result.errno = error.errno
    return result
