"""Who is connected to the engine, for engines that do not count their requests.

All containers of a pod share one network, so the kernel's table of sockets shows the engine's, too. A gateway closes its
idle connections to an endpoint that goes away and keeps those with a request: nobody connected is nothing to do.
"""

from __future__ import annotations

from pathlib import Path

TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_ESTABLISHED = "01"


def count_connections(port: int, tables: tuple[Path, ...] = TABLES) -> int | None:
    """Open connections from other hosts to a port of this pod; None when the table cannot be read."""
    found = 0
    for number, table in enumerate(tables):
        try:
            lines = table.read_text().splitlines()[1:]
        except OSError:
            # Without IPv6 there is no second table.
            if number == 0:
                return None
            continue
        found += sum(1 for line in lines if _counts(line, port))
    return found


def _counts(line: str, port: int) -> bool:
    fields = line.split()
    if len(fields) < 4 or fields[3] != _ESTABLISHED:
        return False
    local_port = int(fields[1].rpartition(":")[2], 16)
    return local_port == port and not _is_loopback(fields[2].rpartition(":")[0])


def _is_loopback(address: str) -> bool:
    """127.0.0.0/8, ::1 and 127.0.0.0/8 in an IPv6 address, in the order in which the kernel writes bytes."""
    if len(address) == 8:
        return address.endswith("7F")
    return address == "00000000000000000000000001000000" or (
        address.startswith("0000000000000000FFFF0000") and address.endswith("7F")
    )
