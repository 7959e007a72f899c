"""Tests that cannot run on this machine.

They are recorded like those of the Rust tests: a line in the file that the environment variable
`STROWGER_SKIPPED` names. With `CI` set, a missing right is an error.
"""

import os
import sys
import unittest


def skip(test, reason):
    """Ends this test (a `unittest.TestCase`) since the machine lacks a right or a tool."""
    if "CI" in os.environ:
        raise AssertionError(f"with CI set no test may be skipped: {reason}")
    print(f"SKIPPED interop {test.id()}: {reason}", file=sys.stderr)
    record = os.environ.get("STROWGER_SKIPPED")
    if record:
        with open(record, "a", encoding="utf-8") as file:
            file.write(f"test\tinterop\t{test.id()}\t{reason}\n")
    raise unittest.SkipTest(reason)
