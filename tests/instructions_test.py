"""Instructions of a fixed piece of work, counted by valgrind: what a change makes slower shows here without a clock.

Counts belong to one compiler; another one is skipped. Where a change is meant to cost more, write its count into
tests/golden/instructions.json.
"""
import json
import os
import pathlib
import re
import subprocess
import unittest

PROGRAM = os.environ["SINKSCOPE_INSTRUCTIONS"]
GOLDEN = pathlib.Path(__file__).resolve().parent / "golden" / "instructions.json"
MARGIN = 1.02


def flags():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        return file.read()


class Instructions(unittest.TestCase):
    def test_attention_takes_no_more_instructions(self):
        if "avx2" not in flags():
            self.skipTest("this processor has no AVX2")
        golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
        compiler = subprocess.run(["g++", "-dumpfullversion"], capture_output=True, text=True, check=True).stdout.strip()
        if compiler != golden["compiler"]:
            self.skipTest(f"counts are of g++ {golden['compiler']}, this is {compiler}")
        for work, most in golden["instructions"].items():
            with self.subTest(work):
                ended = subprocess.run(["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*counted_attend*", PROGRAM, work],
                                       capture_output=True, text=True)
                self.assertEqual(ended.returncode, 0, ended.stderr)
                count = int(re.search(r"Collected : (\d+)", ended.stderr).group(1))
                print(f"{work}: {count} instructions, {most} in the list")
                self.assertGreater(count, most // 2, "nothing was counted")
                self.assertLessEqual(count, most * MARGIN)


if __name__ == "__main__":
    unittest.main()
