"""Tests in a network namespace of their own, with veth pairs that vanish with it."""

import ctypes
import json
import os
import subprocess
import traceback

_CLONE_NEWNET = 0x40000000


def allowed():
    """Whether this process may make a network namespace."""
    return os.geteuid() == 0


def within_namespace(function):
    """Runs `function` in a new process in a new network namespace.

    Programs that it starts run in the same namespace. The interface `lo` is up. Raises an
    `AssertionError` with the traceback if the function raised anything.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(read)
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.unshare(_CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "unshare")
            ip("link", "set", "lo", "up")
            function()
            code = 0
        except BaseException:  # the parent reports every failure
            os.write(write, traceback.format_exc().encode()[-60_000:])
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read, "rb") as report:
        text = report.read().decode()
    _, status = os.waitpid(child, 0)
    if status != 0:
        raise AssertionError(text or f"the process ended with status {status}")


def veth_pair(one, other):
    """Makes two interfaces that are the ends of one cable, and brings both up."""
    ip("link", "add", one, "type", "veth", "peer", "name", other)
    for name in (one, other):
        ip("link", "set", name, "up")


def mac_of(interface):
    """The MAC address of this interface, in 6 bytes."""
    (link,) = json.loads(ip("-json", "link", "show", interface))
    return bytes.fromhex(link["address"].replace(":", ""))


def ip(*arguments):
    """Runs the command `ip` and returns its standard output."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr}")
    return done.stdout
