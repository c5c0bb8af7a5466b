"""Everything that wcodec raises, in one hierarchy.

Catch `WcodecError` for all of it. Where it is known, an exception says which file, which tensor, and at which byte of the file."""

from __future__ import annotations

__all__ = [
    "AlreadyExistsError",
    "BadArgumentError",
    "ChecksumError",
    "CorruptError",
    "DeviceError",
    "InputError",
    "IoError",
    "NotFoundError",
    "TensorNotFoundError",
    "TruncatedError",
    "UnsupportedError",
    "WcodecError",
]


class WcodecError(Exception):
    """What can go wrong.

    Attributes:
        file: the file, as a path, or None.
        tensor: the tensor's name, or None.
        offset: the byte in the file, or None.
    """

    def __init__(
        self, message: str, *, file: str | None = None, tensor: str | None = None, offset: int | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.file = file
        self.tensor = tensor
        self.offset = offset

    # KeyError and OSError have ideas of their own.
    def __str__(self) -> str:
        return self.message

    def __reduce__(self):
        return _restore, (type(self), self.message, self.file, self.tensor, self.offset)


def _restore(kind, message, file, tensor, offset):
    return kind(message, file=file, tensor=tensor, offset=offset)


class CorruptError(WcodecError):
    """The archive's bytes contradict the format."""


class TruncatedError(CorruptError):
    """The archive ends before something that must be there: an interrupted download or copy."""


class ChecksumError(CorruptError):
    """Bytes do not have the checksum that was recorded for them."""


class UnsupportedError(WcodecError):
    """The archive needs another version of wcodec."""


class InputError(WcodecError):
    """What was to be compressed is no checkpoint, or a damaged one."""


class BadArgumentError(WcodecError, ValueError):
    """The caller asked for something that cannot be."""


class TensorNotFoundError(WcodecError, KeyError):
    """There is no such tensor."""


class DeviceError(WcodecError):
    """A device is not there, or failed."""


class IoError(WcodecError, OSError):
    """The operating system refused."""


class NotFoundError(IoError, FileNotFoundError):
    """There is no such file."""


class AlreadyExistsError(IoError, FileExistsError):
    """The target exists, and overwriting it was not asked for."""
