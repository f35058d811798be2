"""The program from outside, for the tests: it runs in a folder of its own, ends with a code, writes sentences and files.

Environment: SINKSCOPE (the program), SINKSCOPE_MODEL (a GGUF file with a tokenizer, as small as can be).
One test: python3 tests/outputs_test.py Outputs.test_a_missing_folder
"""
import array
import ctypes
import fcntl
import json
import math
import os
import pty
import random
import re
import select
import shutil
import stat
import struct
import subprocess
import tempfile
import termios
import time
import unicodedata
import unittest

PROGRAM = os.path.abspath(os.environ.get("SINKSCOPE", "build/sinkscope"))
MODEL = os.path.abspath(os.path.expanduser(os.environ.get("SINKSCOPE_MODEL", "~/.cache/sinkscope/models/smollm2-135m.gguf")))

FAILED, WRONG_USE = 1, 2
PATIENCE = 120          # seconds; a program that needs longer hangs
SMALL = ["--length", "16", "--prompts", "2"]
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def words(n, seed=1):
    """Plain English words; about one token each."""
    some = ("the of and to a in is it you that he was for on are with as I his they be at one have this from or had by hot but "
            "some what there we can out other were all your when up use word how said an each she which do their time").split()
    chosen = random.Random(seed)
    return " ".join(chosen.choice(some) for _ in range(n)) + "\n"


class Ended:
    def __init__(self, arguments, code, out, err, seconds):
        self.arguments, self.code, self.out, self.err, self.seconds = arguments, code, out, err, seconds

    def __str__(self):
        def short(data):
            return data if len(data) < 2000 else data[:2000] + b"..."
        line = " ".join(a if len(a) < 80 else a[:80] + "..." for a in self.arguments)
        return f"sinkscope {line}\nexit code {self.code} after {self.seconds:.2f} s\nstdout: {short(self.out)!r}\nstderr: {short(self.err)!r}"


def environment(**changes):
    env = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "GGML_BACKEND_PATH")}
    env.update(TERM="xterm-256color", OMP_WAIT_POLICY="passive", GGML_NO_BACKTRACE="1")
    env.update(changes)
    return env


def as_user():
    """For preexec_fn: root's right to pass over the rights of files is gone."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        libc.prctl(24, capability, 0, 0, 0)


class Test(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.folder = os.path.realpath(tempfile.mkdtemp(prefix="sinkscope-cli-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, content):
        with open(self.path(name), "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        return name

    def load(self, name):
        with open(self.path(name), encoding="utf-8") as file:
            return json.load(file)

    def files(self):
        found = {}
        for root, folders, files in os.walk(self.folder):
            for name in files + folders:
                where = os.path.join(root, name)
                status = os.lstat(where)
                regular = stat.S_ISREG(status.st_mode)
                found[os.path.relpath(where, self.folder)] = (stat.S_IFMT(status.st_mode), status.st_size if regular else 0,
                                                              status.st_mtime_ns if regular else 0)
        return found

    def start(self, *arguments, **options):
        options.setdefault("env", environment())
        return subprocess.Popen([PROGRAM, *arguments], cwd=self.folder, **options)

    def run_program(self, *arguments, stdin=b"", stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options):
        begin = time.monotonic()
        process = self.start(*arguments, stdin=subprocess.PIPE, stdout=stdout, stderr=stderr, **options)
        try:
            out, err = process.communicate(stdin, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            self.fail(f"hangs: sinkscope {' '.join(arguments)}")
        return Ended(arguments, process.returncode, out or b"", err or b"", time.monotonic() - begin)

    def assert_sentence(self, ended, *expected):
        """stderr is one line "sinkscope: ..." that a terminal can show."""
        text = ended.err.decode("utf-8", "backslashreplace")
        self.assertTrue(text.startswith("sinkscope: ") and text.endswith("\n") and text.count("\n") == 1,
                        f"not one line 'sinkscope: ...' on stderr\n{ended}")
        self.assertFalse([c for c in text[:-1] if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp")],
                         f"control characters on stderr\n{ended}")
        for bad in ("internal error", "terminate called", "std::", "json.exception", "filesystem error", "basic_string"):
            self.assertNotIn(bad, text, f"\n{ended}")
        for word in expected:
            self.assertIn(word.lower(), text.lower(), f"the sentence does not say '{word}'\n{ended}")

    def refused(self, code, *arguments, says=(), **options):
        """The program fails with this code and one sentence, prints no result and changes no file."""
        before = self.files()
        ended = self.run_program(*arguments, **options)
        self.assertEqual(ended.code, code, f"\n{ended}")
        self.assert_sentence(ended, *says)
        self.assertEqual(ended.out, b"", f"something on stdout\n{ended}")
        self.assertEqual(self.files(), before, f"files were left or changed\n{ended}")
        return ended

    def works(self, *arguments, **options):
        ended = self.run_program(*arguments, **options)
        self.assertEqual(ended.code, 0, f"\n{ended}")
        for line in ended.err.decode().splitlines():
            self.assertTrue(line.startswith("sinkscope: note: "), f"more than notes on stderr\n{ended}")
        return ended

    def assert_no_temporary(self, *expected):
        self.assertEqual(sorted(self.files()), sorted(expected), "files were left")


class Terminal:
    """A pseudo-terminal that keeps all it is sent."""

    def __init__(self, columns, rows=50):
        self.columns = columns
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.seen = b""
        self.process = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        if self.slave >= 0:
            os.close(self.slave)

    def start(self, test, *arguments, **options):
        def control():
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        for stream in ("stdin", "stdout", "stderr"):
            options.setdefault(stream, self.slave)
        self.process = test.start(*arguments, start_new_session=True, preexec_fn=control if options["stdin"] == self.slave else None, **options)
        os.close(self.slave)
        self.slave = -1
        return self.process

    def read(self):
        """Some more; False: the other end is closed."""
        if not select.select([self.master], [], [], PATIENCE)[0]:
            raise TimeoutError("nothing on the terminal")
        try:
            data = os.read(self.master, 65536)
        except OSError:
            return False
        self.seen += data
        return bool(data)

    def run(self, test, *arguments, **options):
        process = self.start(test, *arguments, **options)
        while self.read():
            pass
        return process.wait(timeout=PATIENCE)

    def lines(self):
        """All that was ever shown on a line, without escape codes."""
        text = ESCAPE.sub("", self.seen.decode("utf-8", "replace"))
        return [part for part in re.split(r"[\r\n]+", text)]

    def screen(self):
        """What stands on the lines at the end, for the few codes that sinkscope uses."""
        rows = []
        for line in self.seen.decode("utf-8", "replace").split("\n"):
            shown = ""
            for part in line.split("\r"):
                if "\x1b[K" in part or "\x1b[2K" in part:
                    shown, part = "", re.split(r"\x1b\[2?K", part)[-1]
                part = ESCAPE.sub("", part)
                shown = part + shown[len(part):]
            rows.append(shown)
        return rows


TYPES = {"F32": "f", "I32": "i", "U32": "I"}


def read_safetensors(path):
    """{name: (shape, array)}; raises where the file is not exactly what its header says."""
    with open(path, "rb") as file:
        data = file.read()
    n, = struct.unpack_from("<Q", data)
    header = json.loads(data[8:8 + n].decode("utf-8"))
    assert data[8:9] == b"{" and n % 8 == 0, "header is not aligned"
    metadata = header.pop("__metadata__", {})
    assert all(isinstance(v, str) for v in metadata.values()), "metadata holds more than strings"
    end, arrays = 0, {}
    for name, a in sorted(header.items(), key=lambda item: item[1]["data_offsets"][0]):
        begin, stop = a["data_offsets"]
        assert begin == end, f"'{name}' leaves a hole or overlaps"
        assert stop - begin == 4 * math.prod(a["shape"]), f"'{name}' has another size than its shape"
        values = array.array(TYPES[a["dtype"]])
        assert values.itemsize == 4
        values.frombytes(data[8 + n + begin:8 + n + stop])
        arrays[name] = (a["shape"], values)
        end = stop
    assert 8 + n + end == len(data), "the file is longer or shorter than its arrays"
    return arrays, metadata
