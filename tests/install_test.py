"""cmake --install gives a package that find_package(sinkscope) finds; the examples build and run against it."""
import glob
import os
import subprocess
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def run(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=600, **options)


class Install(unittest.TestCase):
    def test_examples_build_and_run_against_the_installed_package(self):
        with tempfile.TemporaryDirectory() as folder:
            prefix, build = os.path.join(folder, "prefix"), os.path.join(folder, "build")
            run("cmake", "--install", os.environ["SINKSCOPE_BUILD"], "--prefix", prefix)
            self.assertIn("0.1.0", run(os.path.join(prefix, "bin", "sinkscope"), "--version").stdout)
            self.assertTrue(glob.glob(os.path.join(prefix, "lib*", "**", "libggml-sinkscope.so"), recursive=True))
            for header in glob.glob(os.path.join(prefix, "include", "sinkscope", "*.h")):
                text = open(header).read()
                self.assertFalse(any(word in text for word in ("#include <ggml", "#include <llama", "#include <torch")), header)
            run("cmake", "-S", os.path.join(ROOT, "examples"), "-B", build, "-G", "Ninja", f"-DCMAKE_PREFIX_PATH={prefix}")
            run("cmake", "--build", build)
            tokens = os.path.join(folder, "text.txt")
            with open(tokens, "w") as file:
                file.write("The snow that falls on a glacier turns to ice. " * 60)
            for example in ("example_profile", "example_probe"):
                printed = run(os.path.join(build, example), "smollm2-135m", tokens).stdout
                self.assertGreaterEqual(len(printed.splitlines()), 30, printed)


if __name__ == "__main__":
    unittest.main()
