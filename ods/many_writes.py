"""Many small writes to as many files, in one call of the kernel.

A thread that writes a row to each of five hundred files lets go of the interpreter five hundred times and waits for it
as often, and takes it from the hub each time. Linux takes all of them at once: `io_submit(2)` of its asynchronous
input and output, which for a file that is not opened with O_DIRECT returns when all is written, as `write(2)` does;
where it returned earlier, `io_getevents(2)` would wait for it. The interpreter's lock is let go of once.

What that does not take is written one by one, and so is all of it where there is no such call: another system or
processor, a sandbox. The numbers and the structures are those of `linux/aio_abi.h` and of the tables of calls of each
processor, in which they are for good.
"""

import contextlib
import ctypes
import errno
import os
import platform
import sys
from collections.abc import Iterator, Sequence

#: So few are as well written one by one.
FEW = 4
#: So many are given to the kernel at once.
MOST_AT_ONCE = 512

#: The numbers of io_setup, io_destroy, io_getevents and io_submit, by processor.
_CALLS = {"x86_64": (206, 207, 208, 209), "aarch64": (0, 1, 4, 2)}
_PWRITE = 1


class _Iocb(ctypes.Structure):
    """`struct iocb`, as a processor with the low byte first and words of eight bytes has it."""

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("key", ctypes.c_uint32),
        ("rw_flags", ctypes.c_uint32),
        ("opcode", ctypes.c_uint16),
        ("priority", ctypes.c_int16),
        ("file", ctypes.c_uint32),
        ("address", ctypes.c_uint64),
        ("size_bytes", ctypes.c_uint64),
        ("offset", ctypes.c_int64),
        ("reserved", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("event_file", ctypes.c_uint32),
    )


#: The words of eight bytes of `struct io_event`: the iocb's data, its address, the result, and nothing.
_EVENT_WORDS, _DATA, _RESULT = 4, 0, 2


class ManyWrites:
    """Writes for one thread."""

    def __init__(self, *, has_aio: bool = True) -> None:
        """`has_aio`: whether to use the kernel's call, if there is one."""
        self._has_aio = has_aio
        self._aio: _Aio | None = None

    def write(self, files: Sequence[int], texts: Sequence[bytes]) -> list[int]:
        """Write each text to its file, each once; returns for each how much was written, or the negative errno.

        The files are to be open for appending. Where one of them cannot be written to, all others are.
        """
        written: list[int] = []
        if len(files) > FEW and (aio := self._get_aio()) is not None:
            for begin in range(0, len(files), MOST_AT_ONCE):
                end = begin + MOST_AT_ONCE
                written += aio.write(files[begin:end], texts[begin:end])
                if len(written) < min(end, len(files)):
                    break
        return written + [
            _write(file, text) for file, text in zip(files[len(written) :], texts[len(written) :], strict=True)
        ]

    def close(self) -> None:
        """Let go of what the kernel holds for this; the next `write` takes it anew."""
        if self._aio is not None:
            self._aio.close()
            self._aio = None

    def _get_aio(self) -> "_Aio | None":
        if self._aio is None and self._has_aio:
            with contextlib.suppress(OSError):
                self._aio = _Aio()
            self._has_aio = self._aio is not None
        return self._aio


def _write(file: int, text: bytes) -> int:
    try:
        return os.write(file, text)
    except OSError as error:
        return -(error.errno or errno.EIO)


class _Aio:
    """A context of Linux's asynchronous input and output."""

    def __init__(self) -> None:
        """Raises OSError where there is none to be had."""
        calls = _CALLS.get(platform.machine()) if sys.platform == "linux" and sys.byteorder == "little" else None
        if calls is None or ctypes.sizeof(ctypes.c_void_p) != ctypes.sizeof(ctypes.c_uint64):
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        setup, self._destroy, self._getevents, self._submit = calls
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        self._syscall.argtypes = [ctypes.c_long] * 6
        self._syscall.restype = ctypes.c_long
        context = ctypes.c_ulong(0)
        self._call(setup, MOST_AT_ONCE, ctypes.addressof(context))
        self._context = context.value
        iocbs = (_Iocb * MOST_AT_ONCE)()
        self._iocbs = list(iocbs)
        for number, iocb in enumerate(self._iocbs):
            iocb.data, iocb.opcode = number, _PWRITE
        self._pointers = (ctypes.c_uint64 * MOST_AT_ONCE)(*map(ctypes.addressof, self._iocbs))
        self._events = (ctypes.c_int64 * (MOST_AT_ONCE * _EVENT_WORDS))()

    def write(self, files: Sequence[int], texts: Sequence[bytes]) -> list[int]:
        """As `ManyWrites.write`, but perhaps only the first of them."""
        count = len(texts)
        addresses = (ctypes.c_uint64 * count).from_buffer((ctypes.c_char_p * count)(*texts))
        for iocb, file, text, address in zip(self._iocbs, files, texts, addresses, strict=False):
            iocb.file, iocb.address, iocb.size_bytes = file, address, len(text)
        taken = 0
        with contextlib.suppress(OSError):  # what was not taken
            while taken < count:
                more = self._call(self._submit, self._context, count - taken, self._pointer(taken))
                if not more:
                    break
                taken += more
        written = [0] * taken
        for number, result in self._results(taken):
            written[number] = result
        return written

    def close(self) -> None:
        """Give the context back."""
        self._call(self._destroy, self._context)

    def _pointer(self, number: int) -> int:
        return ctypes.addressof(self._pointers) + number * ctypes.sizeof(ctypes.c_uint64)

    def _results(self, count: int) -> Iterator[tuple[int, int]]:
        """Wait for so many results: until then the kernel may still read the texts."""
        while count:
            try:
                ended = self._call(self._getevents, self._context, count, count, ctypes.addressof(self._events))
            except InterruptedError:
                continue
            end = ended * _EVENT_WORDS
            yield from zip(self._events[_DATA:end:_EVENT_WORDS], self._events[_RESULT:end:_EVENT_WORDS], strict=True)
            count -= ended

    def _call(self, *arguments: int) -> int:
        """Raises OSError."""
        result: int = self._syscall(*arguments, *[0] * (6 - len(arguments)))
        if result < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return result
