"""The reader of examples and tables, which all other tests use."""

import unittest

from harness import specification


class Examples(unittest.TestCase):
    def test_an_unknown_example_is_an_error(self):
        with self.assertRaisesRegex(KeyError, "no example `none`"):
            specification.example("none")

    def test_comments_and_repetitions_are_understood(self):
        self.assertEqual(specification.bytes_of("00ff*2 10 ; 20\n30*0 40"), bytes.fromhex("00ff00ff1040"))
