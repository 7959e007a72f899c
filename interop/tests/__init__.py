"""The tests. Those that need minutes begin first and are checked last."""

import unittest


def load_tests(loader, standard_tests, pattern):
    """Puts the first half of `test_rekey` before all other tests, and the rest behind them."""
    del standard_tests
    from tests import test_rekey

    directory = __path__[0]
    found = [
        test
        for test in _flat(loader.discover(directory, pattern or "test*.py", directory + "/.."))
        if type(test).__module__ != test_rekey.__name__
    ]
    begin = loader.loadTestsFromTestCase(test_rekey.Begin)
    check = loader.loadTestsFromTestCase(test_rekey.Check)
    return unittest.TestSuite([begin, *found, check])


def _flat(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from _flat(test)
        else:
            yield test
