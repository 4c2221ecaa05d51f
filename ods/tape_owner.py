"""Whose a tape is: the address of the pod, and whether a worker knows of the connection. Written by the keeper.

Nobody else needs it while the keeper lives. The next one, after a crash of the keeper, may find of a connection that
has ended nothing but its tape: a socket that was reset does not tell any more who its peer was.
"""

import ipaddress
import os
import struct

#: Three words of the tape's header that its reader does not use (`ods.tape`). Bytes.
_AT = 5 * 8
_FORM = struct.Struct("=BB6x16s")
_IS_ENTERED = 1


def write(tape: int, address: str, *, is_entered: bool) -> None:
    """Note it in a tape, by its file descriptor. Raises OSError."""
    packed = ipaddress.ip_address(address.partition("%")[0]).packed
    os.pwrite(tape, _FORM.pack(is_entered * _IS_ENTERED, len(packed), packed), _AT)


def read(tape: int) -> tuple[str | None, bool]:
    """The address, None where none was noted, and whether a worker knows of the connection. Raises OSError."""
    data = os.pread(tape, _FORM.size, _AT)
    if len(data) < _FORM.size:
        return None, False
    flags, length, packed = _FORM.unpack(data)
    address = str(ipaddress.ip_address(packed[:length])) if length in (4, 16) else None
    return address, bool(flags & _IS_ENTERED)
