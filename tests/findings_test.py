"""The numbers of docs/findings.md, measured again: the smaller two of its models."""

import pathlib
import subprocess
import sys
import unittest

SCRIPT = pathlib.Path(__file__).resolve().parent.parent / "scripts/make-findings"


class Findings(unittest.TestCase):
    def test_are_as_stored(self):
        done = subprocess.run([sys.executable, SCRIPT, "--check", "smollm2-135m", "gemma3-270m"], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)


if __name__ == "__main__":
    unittest.main()
