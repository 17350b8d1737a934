"""Runs one program and its tests under limits: a script for a process of its own, which imports nothing of Matura.

It reads "SECONDS MEMORY TOKEN SIZE\\n", the program of that many bytes and the tests from standard input, and writes
TOKEN when the tests are through. A program that ends early, by whatever way, writes none.

The limits: processor time, memory, no files larger than 1 MiB, no core files, no new processes, few open files; a
network namespace of its own where the system allows it, so that there is no network; and an audit hook that refuses
sockets, processes, writing outside of the folder and foreign functions. The hook stops accidents, not attacks: a
program that means harm can get around it. Such programs need a container or a virtual machine around all of this.
"""

import contextlib
import ctypes
import math
import os
import random
import resource
import sys

NEW_USER, NEW_NETWORK, NO_NEW_PRIVILEGES = 0x10000000, 0x40000000, 38
REFUSED = (
    "socket.",
    "subprocess.",
    "os.system",
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "os.spawn",
    "os.kill",
    "signal.pthread_kill",
    "ctypes.",
    "shutil.",
    "pty.",
    "webbrowser.",
    "urllib.",
    "ftplib.",
    "http.",
    "smtplib.",
    "sqlite3.",
    "syslog.",
)
PATHS = (
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.mkdir",
    "os.chmod",
    "os.chown",
    "os.link",
    "os.symlink",
    "os.truncate",
)


def limit(seconds: float, memory: int) -> None:
    """Set the limits of this process; children inherit them."""
    whole = math.ceil(seconds)
    for kind, most in (
        (resource.RLIMIT_CPU, whole),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, 1 << 20),
        (resource.RLIMIT_NOFILE, 32),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        with contextlib.suppress(ValueError, OSError):  # not every system has every limit
            resource.setrlimit(kind, (most, most))


def isolate() -> None:
    """Leave the network and the right to gain rights behind, as far as this system lets one."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        libc.unshare(NEW_USER | NEW_NETWORK)


def watch(folder: str) -> None:
    """Refuse what a program that computes something has no need of."""

    def inside(path: object) -> bool:
        if isinstance(path, int):
            return True
        return os.path.realpath(os.fsdecode(path)).startswith(folder + os.sep)  # type: ignore[arg-type]

    def hook(event: str, given: tuple[object, ...]) -> None:
        if event.startswith(REFUSED):
            raise PermissionError(f"{event} is not allowed here")
        if event == "open" and given[0] is not None:
            mode, flags = given[1], given[2]
            asked = set(mode) & set("wax+") if isinstance(mode, str) else False
            writing = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if (asked or writing) and not inside(given[0]):
                raise PermissionError(f"writing to {given[0]!r} is not allowed here")
        if event.startswith(PATHS) and not inside(given[0]):
            raise PermissionError(f"{event} is not allowed here")

    sys.addaudithook(hook)


def main() -> None:
    """Read, limit, run, tell."""
    head = sys.stdin.buffer.readline().split()
    seconds, memory, token, size = float(head[0]), int(head[1]), head[2], int(head[3])
    program, tests = sys.stdin.buffer.read(size), sys.stdin.buffer.read()
    told = os.dup(1)
    quiet = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(quiet, descriptor)
    os.close(quiet)
    isolate()
    random.seed(0)
    limit(seconds, memory)
    watch(os.path.realpath(os.getcwd()))
    try:
        space = {"__name__": "__main__"}
        exec(compile(program, "program.py", "exec"), space)
        exec(compile(tests, "tests.py", "exec"), space)
    except BaseException:
        os._exit(1)
    os.write(told, token)
    os._exit(0)


if __name__ == "__main__":
    main()
