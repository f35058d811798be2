"""The kernel on ARM: its tests, cross-compiled for NEON and run by qemu-user.

Highway, fmt and GoogleTest for arm64 come from Debian's packages, unpacked into the cache folder: the system's own
architectures stay as they are.
"""
import os
import pathlib
import platform
import shutil
import subprocess
import unittest

HERE = pathlib.Path(__file__).resolve().parent
BUILD = pathlib.Path(os.environ["SINKSCOPE_BUILD"]) / "arm64"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "sinkscope" / "arm64"
PACKAGES = ("libhwy1", "libhwy-dev", "libfmt9", "libfmt-dev", "libgtest-dev")
SYSTEM = "/usr/aarch64-linux-gnu"  # libc and libstdc++ of the cross compiler


def run(*command, **more):
    ended = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)
    if ended.returncode != 0:
        raise AssertionError(f"{command[0]} ended with {ended.returncode}:\n{ended.stdout[-4000:]}")
    return ended.stdout


def libraries():
    """Debian's packages for arm64, unpacked."""
    root = CACHE / "root"
    if root.is_dir():
        return root
    shutil.rmtree(CACHE, ignore_errors=True)
    for folder in ("state/lists/partial", "cache/archives/partial", "debs", "part"):
        (CACHE / folder).mkdir(parents=True)
    (CACHE / "state/status").touch()
    apt = ["apt-get", "-o", f"Dir::State={CACHE}/state", "-o", f"Dir::State::status={CACHE}/state/status", "-o", f"Dir::Cache={CACHE}/cache",
           "-o", "APT::Architecture=arm64", "-o", "APT::Architectures=arm64", "-o", "APT::Sandbox::User=root"]
    run(*apt, "update")
    run(*apt, "download", *PACKAGES, cwd=CACHE / "debs")
    for package in (CACHE / "debs").iterdir():
        run("dpkg-deb", "-x", package, CACHE / "part")
    (CACHE / "part").rename(root)
    return root


@unittest.skipIf(platform.machine() == "aarch64", "this is one: unit_tests has tested it")
class Arm64(unittest.TestCase):
    def test_kernel_tests_pass_with_neon(self):
        run("cmake", "-S", HERE / "arm64", "-B", BUILD, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_SYSTEM_NAME=Linux",
            "-DCMAKE_SYSTEM_PROCESSOR=aarch64", "-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++", f"-DSINKSCOPE_ARM64_ROOT={libraries()}",
            *(["-DCMAKE_CXX_COMPILER_LAUNCHER=ccache"] if shutil.which("ccache") else []))
        run("cmake", "--build", BUILD)
        out = run("qemu-aarch64", "-L", SYSTEM, BUILD / "kernel_tests", "--gtest_filter=*neon*:Team*:Isa*", env={**os.environ, "OMP_NUM_THREADS": "2"})
        self.assertIn("[  PASSED  ]", out)
        self.assertRegex(out, r"EqualsTheDoubleReference/neon_few_q4_0")
        self.assertNotIn("0 tests ran", out)


if __name__ == "__main__":
    unittest.main()
