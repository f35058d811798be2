#!/usr/bin/env python3
"""The whole program from outside: exit codes, sentences, files, terminals, signals.

Environment: SINKSCOPE (the program), SINKSCOPE_MODEL (a GGUF file with a tokenizer, as small as can be).
One test: python3 tests/cli_test.py Outputs.test_a_missing_folder
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
import resource
import select
import shutil
import signal
import stat
import struct
import subprocess
import sys
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
SGR = re.compile(rb"\x1b\[[0-9;]*m")
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


class Models(Test):
    def setUp(self):
        super().setUp()
        self.write("text", words(60))

    def refuses(self, model, *says):
        self.refused(FAILED, "profile", model, "text", "--json", "out.json", says=says)

    def test_a_missing_file(self):
        self.refuses("no-such.gguf", "no-such.gguf")

    def test_a_missing_file_says_which_names_there_are(self):
        self.refuses("smollm", "smollm", "smollm2-135m")

    def test_a_known_name_that_is_not_there_says_how_to_fetch_it(self):
        self.refused(FAILED, "profile", "smollm2-135m", "text", says=("smollm2-135m", "fetch-model smollm2-135m"),
                     env=environment(XDG_CACHE_HOME=self.path("no-cache")))

    def test_a_known_name_is_a_model(self):
        os.makedirs(self.path("cache/sinkscope/models"))
        os.symlink(MODEL, self.path("cache/sinkscope/models/smollm2-135m.gguf"))
        self.works("profile", "smollm2-135m", "text", *SMALL, env=environment(XDG_CACHE_HOME=self.path("cache")))

    def test_an_empty_file(self):
        self.refuses(self.write("empty.gguf", ""), "empty.gguf", "is empty")
        self.refuses("/dev/null", "/dev/null")

    def test_a_folder(self):
        os.mkdir(self.path("folder"))
        self.refuses("folder", "folder", "is a folder")
        self.refuses(".", "is a folder")

    def test_a_name_that_no_file_can_have(self):
        self.refuses("x" * 300)
        self.refuses("x/" * 3000)
        self.refuses("")
        self.refuses("text/inside")

    def test_a_loop_of_links(self):
        os.symlink("loop", self.path("loop"))
        self.refuses("loop", "loop")

    def test_a_link_to_nothing(self):
        os.symlink("nothing", self.path("link"))
        self.refuses("link", "link")

    def test_a_file_that_may_not_be_read(self):
        self.write("secret.gguf", "GGUF")
        os.chmod(self.path("secret.gguf"), 0)
        self.refused(FAILED, "profile", "secret.gguf", "text", says=("secret.gguf", "denied"), preexec_fn=as_user)

    def test_a_folder_that_may_not_be_entered(self):
        os.mkdir(self.path("closed"))
        os.chmod(self.path("closed"), 0)
        self.addCleanup(os.chmod, self.path("closed"), 0o700)
        ended = self.run_program("profile", "closed/model.gguf", "text", preexec_fn=as_user)
        self.assertEqual(ended.code, FAILED, f"\n{ended}")
        self.assert_sentence(ended, "closed/model.gguf")

    def test_no_gguf(self):
        for name, content in {"text.gguf": words(20), "zip.gguf": b"PK\3\4" + bytes(100), "short.gguf": b"GG", "turned.gguf": b"FUGG" + bytes(64),
                              "zeros.gguf": bytes(1000)}.items():
            with self.subTest(name):
                self.refuses(self.write(name, content), name, "not a GGUF file")

    def test_a_truncated_file(self):
        size = os.path.getsize(MODEL)
        for n in (4, 5, 8, 16, 23, 24, 30, 100, 5000, 100000, size // 20, size - 1):
            with self.subTest(bytes=n):
                with open(MODEL, "rb") as whole, open(self.path("cut.gguf"), "wb") as cut:
                    while n > 0 and (block := whole.read(min(n, 1 << 20))):
                        cut.write(block)
                        n -= len(block)
                self.refuses("cut.gguf", "cut.gguf")

    def test_another_version(self):
        for version in (0, 1, 4, 0x03000000, 0xffffffff):
            with self.subTest(version=version):
                self.refuses(self.write("version.gguf", struct.pack("<4sIQQ", b"GGUF", version, 0, 0) + bytes(64)), "version.gguf")

    def test_no_model_in_it(self):
        self.refuses(self.write("hollow.gguf", struct.pack("<4sIQQ", b"GGUF", 3, 0, 0) + bytes(64)), "hollow.gguf")

    def test_an_unknown_architecture(self):
        def text(s):
            return struct.pack("<Q", len(s)) + s
        for architecture in (b"frob", b"", b"frob\x1b[31m\n", b"\xff\xfe"):
            with self.subTest(architecture=architecture):
                self.refuses(self.write("arch.gguf", struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + text(b"general.architecture") +
                                        struct.pack("<I", 8) + text(architecture) + bytes(64)), "arch.gguf")

    def test_a_name_with_control_characters_is_shown_safely(self):
        self.refuses("no\n\x1b[31mred\x07file", "red")


class Texts(Test):
    def refuses(self, *texts, says=(), options=(), code=FAILED, **more):
        self.refused(code, "profile", MODEL, *texts, *options, "--json", "out.json", says=says, **more)

    def test_a_missing_file(self):
        self.refuses("none.txt", says=("none.txt",))
        self.refuses(self.write("good.txt", words(200)), "none.txt", says=("none.txt",))

    def test_a_folder(self):
        self.refuses(".", says=("is a folder",))

    def test_an_empty_file(self):
        self.refuses(self.write("empty.txt", ""), says=("empty.txt", "64"))
        self.refuses(self.write("empty.txt", ""), options=("--length", "0"), says=("empty.txt",))

    def test_a_name_that_no_file_can_have(self):
        self.refuses("x" * 300)
        os.symlink("loop", self.path("loop"))
        self.refuses("loop", says=("loop",))

    def test_a_file_that_may_not_be_read(self):
        os.chmod(self.path(self.write("secret.txt", words(100))), 0)
        # The model stands in a folder that only root may enter: a copy of its head is not enough here.
        os.link(MODEL, self.path("model.gguf")) if os.stat(MODEL).st_dev == os.stat(self.folder).st_dev else shutil.copy(MODEL, self.path("model.gguf"))
        self.refused(FAILED, "profile", "model.gguf", "secret.txt", says=("secret.txt", "denied"), preexec_fn=as_user)

    def test_too_short(self):
        self.write("short.txt", words(12))
        self.refuses("short.txt", says=("short.txt", "tokens", "--length 64", "more text"))
        self.refuses("short.txt", "short.txt", says=("tokens", "--length 64"))
        self.refuses("short.txt", options=("--length", "2147483647"), says=("2147483647",))
        self.refuses(self.write("one.txt", "a"), options=("--length", "0", "--bos", "never"), says=("one.txt", "at least 2"))

    def test_an_empty_standard_input(self):
        self.refuses("-", says=("standard input",), options=("--length", "0"))
        self.refuses("-", says=("standard input",))

    def test_neither_text_nor_tokens(self):
        self.refuses(code=WRONG_USE, says=("--tokens",))

    def test_both_text_and_tokens(self):
        self.write("good.txt", words(200))
        self.write("tokens", "[[1,2,3]]")
        self.refuses("good.txt", options=("--tokens", "tokens"), code=WRONG_USE, says=("--tokens",))

    def test_broken_utf8_is_a_text_or_a_sentence(self):
        for i, broken in enumerate((b"\xff", b"\xc3", b"\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xc0\x80", b"\xe2\x82",
                                    bytes(random.Random(1).randrange(256) for _ in range(2000)))):
            with self.subTest(broken=broken[:8]):
                self.write("broken.txt", b"Hello world " + broken + b" and more of it")
                ended = self.run_program("profile", MODEL, "broken.txt", "--length", "0", "--context", "32")
                if ended.code == 0:
                    continue
                self.assertEqual(ended.code, FAILED, f"\n{ended}")
                self.assert_sentence(ended, "broken.txt")

    def test_zero_bytes_are_text(self):
        self.write("zero.txt", b"Hello\0world and\0\0more")
        self.works("profile", MODEL, "zero.txt", "--length", "0")


class Tokens(Test):
    """--tokens: an array of arrays of ids."""

    def refuses(self, content, *says):
        name = self.write("tokens.json", content)
        shown = content if len(content) < 60 else content[:60]
        with self.subTest(shown):
            self.refused(FAILED, "profile", MODEL, "--tokens", name, "--json", "out.json", says=("tokens.json", *says))

    def test_outside_the_vocabulary(self):
        for token in ("10000000", "-1", "-2147483648", "2147483648", "4294967296", "4294967297", "9223372036854775807", "9223372036854775808",
                      "-9223372036854775808", "18446744073709551615"):
            self.refuses(f"[[1,2],[3,{token}]]", token, "0 to ")

    def test_huge_numbers(self):
        for token in ("18446744073709551616", "-9223372036854775809", "9" * 40, "1e99", "1e999", "-1e999", "9" * 1000000, "1" + "0" * 400):
            self.refuses(f"[[1,{token}]]")

    def test_no_whole_numbers(self):
        for token in ("1.0", "1.5", "1e0", "-0.0", '"1"', '"a"', "null", "true", "false", '""', '"\\u001b[31m\\n"', '"' + "x" * 1000000 + '"'):
            self.refuses(f"[[1,{token}]]")

    def test_wrong_nesting(self):
        for content in ("[]", "[[]]", "[[1]]", "[1,2]", "[[[1,2]]]", "[[1,[2]]]", "[[1,2],3]", "[[1,2],[]]", "[[1,2],[3]]", "{}", '{"a":[[1,2]]}', "5", '"a"',
                        "null", "[[1,{}]]", '[[1,{"a":2}]]', "[null]"):
            self.refuses(content, "token id")

    def test_no_json(self):
        for content in ("", " ", "x", "[[1,2]", "[[1,2]] x", "[[1,2],]", "[[1,,2]]", "[[1 2]]", "[[NaN,2]]", "[[0x1,2]]", "[[01,2]]", "[[+1,2]]", "[[1,2]][[3,4]]",
                        "['a']", b"\xff\xfe[\0[\0", b'[["\xff",1]]', b"\0", "[" * 100, "]", "// c\n[[1,2]]"):
            self.refuses(content, "JSON")

    def test_deep_nesting_needs_no_stack(self):
        for depth in (1000, 100000, 3000000):
            self.refuses("[" * depth)
            self.refuses("[" * depth + "]" * depth)
            self.refuses("[[1," + "[" * depth + "]" * depth + "]]")
            self.refuses("[[1," + '{"a":' * depth + "1" + "}" * depth + "]]")
            self.refuses('{"a":' * depth)

    def test_a_missing_file_and_a_folder(self):
        self.refused(FAILED, "profile", MODEL, "--tokens", "none.json", says=("none.json",))
        self.refused(FAILED, "profile", MODEL, "--tokens", ".", says=("is a folder",))
        self.refused(FAILED, "profile", MODEL, "--tokens", "x" * 300)

    def test_white_space_and_byte_order_mark_are_fine(self):
        for content in (b"\xef\xbb\xbf[[1,2]]", b" [ [ 1 ,\n 2 ] ,\t[3,4] ]\r\n"):
            self.write("tokens.json", content)
            self.works("profile", MODEL, "--tokens", "tokens.json")

    def test_standard_input(self):
        self.works("profile", MODEL, "--tokens", "-", "--json", "out.json", stdin=b"[[1,2,3],[4,5]]")
        run = self.load("out.json")["run"]
        self.assertEqual((run["n_prompt"], run["n_token"], run["length"], run["shortest"]), (2, 5, 3, 2))

    def test_context_cuts_them(self):
        self.write("tokens.json", json.dumps([list(range(1, 21)), [1, 2, 3]]))
        self.works("profile", MODEL, "--tokens", "tokens.json", "--context", "8", "--json", "out.json")
        self.assertEqual(self.load("out.json")["run"]["length"], 8)


class Options(Test):
    def setUp(self):
        super().setUp()
        self.write("text", words(200))

    def refuses(self, *options, says=(), code=WRONG_USE):
        with self.subTest(" ".join(options)):
            self.refused(code, "profile", MODEL, "text", *options, says=says)

    def test_no_subcommand(self):
        self.refused(WRONG_USE, says=("profile",))
        self.refused(WRONG_USE, "frob", says=("frob", "--help"))
        self.refused(WRONG_USE, "--frob", says=("--frob",))

    def test_no_model(self):
        self.refused(WRONG_USE, "profile", says=("MODEL",))

    def test_unknown_options(self):
        for option in ("--frob", "--lenght", "-x", "--json-file", "--frob=3", "--\x1b[31m"):
            self.refuses(option, says=(option.split("=")[0].replace("\x1b", ""),) if "\x1b" not in option else ())

    def test_no_number(self):
        for option in ("--length", "--prompts", "--epsilon", "--min-rows", "--context", "--batch", "--threads", "--gpu-layers", "--seed"):
            for value in ("x", "", "1x", "99999999999999999999", "0x", "1e400x", "--", "٣"):
                self.refuses(f"{option}={value}", says=(option,))

    def test_fractions(self):
        for option in ("--length", "--prompts", "--threads", "--batch", "--seed"):
            self.refuses(option, "2.5", says=(option, "2.5"))

    def test_missing_values(self):
        for option in ("--length", "--json", "--tokens", "--epsilon", "--baseline", "--maps"):
            self.refuses(option, says=(option,))

    def test_given_twice(self):
        self.refuses("--length", "5", "--length", "6", says=("--length",))

    def test_lengths_below_two(self):
        for length in ("1", "-1", "-64", "-2147483648"):
            self.refuses("--length", length, says=("--length", length))

    def test_out_of_range(self):
        for option, value in (("--threads", "-1"), ("--threads", "100000"), ("--threads", "2147483647"), ("--batch", "0"), ("--batch", "-5"), ("--context", "1"),
                              ("--context", "-3"), ("--prompts", "-1"), ("--min-rows", "0"), ("--gpu-layers", "-1"), ("--epsilon", "0"),
                              ("--epsilon", "1"), ("--epsilon", "nan"), ("--epsilon", "inf"), ("--epsilon", "-0.3"), ("--epsilon", "1e999"),
                              ("--seed", "-1"), ("--seed", "4294967296")):
            self.refuses(option, value, says=(option,))

    def test_unknown_names(self):
        for option, says in (("--isa", "auto"), ("--kv-type", "q8_0"), ("--bos", "always"), ("--baseline", "repeat")):
            for value in ("frob", "AUTO", " ", "auto ", "\x1b[31m"):
                if (option, value) != ("--isa", "auto"):
                    self.refuses(option, value, says=(option, says))

    def test_unknown_names_with_tokens(self):
        self.write("tokens", "[[1,2,3]]")
        for option in ("--isa", "--kv-type", "--bos", "--baseline"):
            with self.subTest(option):
                self.refused(WRONG_USE, "profile", MODEL, "--tokens", "tokens", option, "frob", says=(option, "frob"))

    def test_wrong_use_is_said_before_the_model_is_read(self):
        for option, value in (("--length", "1"), ("--bos", "frob"), ("--kv-type", "frob"), ("--isa", "frob"), ("--baseline", "frob"),
                              ("--tokens", "both")):
            with self.subTest(option):
                self.refused(WRONG_USE, "profile", "no-such.gguf", "text", option, value, says=(option,))

    def test_maps(self):
        for value in ("frob", "0", "0:", ":0", "0:0:0", "0:0,1", "-1:0", "0:-1", "100000:0", "0:100000", "99999999999:0", "0:99999999999", " 0:0", "0: 0", "0x0:0"):
            self.refuses("--maps", value, "--arrays", "a.safetensors", says=("--maps", value))
        self.refuses("--maps", "0:0", says=("--arrays",))

    def test_instruction_sets_of_other_machines(self):
        self.refuses("--isa", "neon" if os.uname().machine == "x86_64" else "avx2", says=("--isa", "generic"))

    def test_help_and_version(self):
        for arguments in (("--help",), ("profile", "--help"), ("--version",)):
            ended = self.works(*arguments)
            self.assertTrue(ended.out)
            self.assertEqual(ended.err, b"")
        said = self.works("profile", "--help").out.decode()
        for option in ("--tokens", "--length", "--bos", "--baseline", "--epsilon", "--threads", "--batch", "--context", "--kv-type", "--json", "--arrays", "--sinkmap"):
            self.assertIn(option, said)

    def test_one_file_cannot_take_two_results(self):
        for a, b in (("--json", "--sinkmap"), ("--json", "--arrays"), ("--sinkmap", "--arrays")):
            self.refuses(a, "same", b, "same", *SMALL, says=("same",))
            self.refuses(a, "same", b, "./same", *SMALL, says=("same",))

    def test_a_result_cannot_replace_what_is_read(self):
        self.refuses("--json", "text", *SMALL, says=("text",))
        self.write("tokens", "[[1,2,3]]")
        self.refused(WRONG_USE, "profile", MODEL, "--tokens", "tokens", "--json", "tokens", says=("tokens",))
        os.symlink(MODEL, self.path("model.gguf"))
        self.refused(WRONG_USE, "profile", "model.gguf", "text", *SMALL, "--arrays", "model.gguf", says=("model.gguf",))

    def test_an_empty_file_name(self):
        for option in ("--json", "--sinkmap", "--arrays", "--tokens"):
            self.refuses(option, "", *SMALL, says=(option,))


class Outputs(Test):
    """Files appear whole or not at all."""

    OPTIONS = ("--json", "--sinkmap", "--arrays")

    def setUp(self):
        super().setUp()
        self.write("text", words(200))

    def refuses(self, *options, says=(), **more):
        return self.refused(FAILED, "profile", MODEL, "text", *SMALL, *options, says=says, **more)

    def test_a_missing_folder(self):
        for option in self.OPTIONS:
            self.refuses(option, "none/out", says=("none/out",))

    def test_a_place_that_cannot_be_written_shows_before_the_work(self):
        self.write("long", words(20000))
        for option in self.OPTIONS:
            with self.subTest(option):
                ended = self.refused(FAILED, "profile", MODEL, "long", "--length", "64", "--prompts", "0", option, "none/out", says=("none/out",))
                self.assertLess(ended.seconds, 10, f"\n{ended}")

    def test_a_folder(self):
        os.mkdir(self.path("folder"))
        for option in self.OPTIONS:
            self.refuses(option, "folder", says=("folder",))
            self.refuses(option, ".", says=("folder",))
            self.refuses(option, "new/", says=("new/",))

    def test_a_file_as_folder(self):
        for option in self.OPTIONS:
            self.refuses(option, "text/out", says=("text/out",))

    def test_names_that_no_file_can_have(self):
        os.symlink("loop", self.path("loop"))
        for option in self.OPTIONS:
            self.refuses(option, "x" * 300)
            self.refuses(option, "loop", says=("loop",))

    def test_a_name_of_the_greatest_length(self):
        name = "x" * 255
        self.works("profile", MODEL, "text", *SMALL, "--json", name)
        self.assert_no_temporary("text", name)

    def test_a_folder_without_permission(self):
        os.mkdir(self.path("closed"))
        os.chmod(self.path("closed"), 0o555)
        model = os.path.relpath(self.readable_model(), self.folder)
        for option in self.OPTIONS:
            self.refused(FAILED, "profile", model, "text", *SMALL, option, "closed/out", says=("closed/out", "denied"), preexec_fn=as_user)

    def readable_model(self):
        try:
            os.link(MODEL, self.path("model.gguf"))
        except OSError:
            shutil.copy(MODEL, self.path("model.gguf"))
        return self.path("model.gguf")

    def test_one_bad_place_leaves_no_other_file(self):
        self.refuses("--json", "good.json", "--sinkmap", "none/out")
        self.refuses("--json", "good.json", "--arrays", "none/out")
        self.refuses("--arrays", "good.safetensors", "--json", "none/out")

    def test_a_failure_leaves_the_file_of_before(self):
        self.write("out.json", "before")
        self.refused(FAILED, "profile", MODEL, "none", "--json", "out.json")
        self.refused(FAILED, "profile", "none", "text", "--json", "out.json")

    def test_success_replaces_the_file_of_before(self):
        self.write("out.json", "x" * 1000000)
        self.works("profile", MODEL, "text", *SMALL, "--json", "out.json")
        self.load("out.json")
        self.assert_no_temporary("text", "out.json")

    def test_a_link_stays_a_link(self):
        os.mkdir(self.path("other"))
        self.write("other/target.json", "before")
        os.symlink("other/target.json", self.path("link.json"))
        self.works("profile", MODEL, "text", *SMALL, "--json", "link.json")
        self.assertTrue(os.path.islink(self.path("link.json")), "the link was replaced by a file")
        self.load("other/target.json")
        self.assert_no_temporary("text", "other", "other/target.json", "link.json")

    def test_a_device_or_pipe_is_not_replaced(self):
        # Never on the real /dev: a program that gets this wrong would replace /dev/null.
        os.mkfifo(self.path("pipe"))
        special = ["pipe"]
        try:
            os.mknod(self.path("null"), stat.S_IFCHR | 0o666, os.makedev(1, 3))
            special.append("null")
        except PermissionError:
            pass
        for name in special:
            for option in self.OPTIONS:
                with self.subTest(option, name=name):
                    kind = stat.S_IFMT(os.lstat(self.path(name)).st_mode)
                    self.refuses(option, name, says=(name,))
                    self.assertEqual(stat.S_IFMT(os.lstat(self.path(name)).st_mode), kind, f"'{name}' was replaced by a file")
        self.assert_no_temporary("text", *special)

    def test_rights_follow_the_umask(self):
        self.works("profile", MODEL, "text", *SMALL, "--json", "out.json", preexec_fn=lambda: os.umask(0o027))
        self.assertEqual(stat.S_IMODE(os.stat(self.path("out.json")).st_mode), 0o640)

    def test_a_full_disk(self):
        os.mkdir(self.path("disk"))
        if os.geteuid() != 0 or subprocess.call(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", self.path("disk")], stderr=subprocess.DEVNULL) != 0:
            self.skipTest("needs root and mount")
        try:
            for option in self.OPTIONS:
                with self.subTest(option):
                    self.refuses(option, "disk/out", says=("disk/out", "space", "room"))
            with self.subTest("the other file too"):
                self.refuses("--arrays", "disk/out", "--json", "good.json", says=("disk/out",))
                self.refuses("--sinkmap", "disk/out", "--json", "good.json", says=("disk/out",))
                self.refuses("--json", "disk/out", "--arrays", "good.safetensors", says=("disk/out",))
        finally:
            subprocess.call(["umount", self.path("disk")])

    def limited(self, ignore):
        def prepare():
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN if ignore else signal.SIG_DFL)
        return prepare

    def test_a_file_that_may_not_grow(self):
        for ignore in (True, False):
            for option in self.OPTIONS:
                with self.subTest(option, ignored=ignore):
                    self.refuses(option, "out", says=("out",), preexec_fn=self.limited(ignore), restore_signals=False)

    def test_a_full_stdout(self):
        for arguments in (("profile", MODEL, "text", *SMALL, "--json", "out.json"), ("--help",), ("profile", "--help"), ("--version",)):
            with self.subTest(" ".join(arguments[:2])), open("/dev/full", "wb") as full:
                ended = self.run_program(*arguments, stdout=full)
                self.assertEqual(ended.code, FAILED, f"\n{ended}")
                self.assert_sentence(ended, "standard output")
        self.assert_whole_or_none("out.json")

    def assert_whole_or_none(self, name):
        if os.path.exists(self.path(name)):
            self.load(name)
        self.assertLessEqual(set(self.files()), {"text", name})

    def test_a_stdout_that_nobody_reads(self):
        reader, writer = os.pipe()
        os.close(reader)
        try:
            ended = self.run_program("profile", MODEL, "text", *SMALL, "--json", "out.json", stdout=writer)
        finally:
            os.close(writer)
        self.assertEqual(ended.code, FAILED, f"\n{ended}")
        self.assert_sentence(ended, "nobody reads standard output")
        self.assert_whole_or_none("out.json")

    def test_a_full_stderr(self):
        with open("/dev/full", "wb") as full:
            for arguments, code in ((("profile", MODEL, "none"), FAILED), (("profile", "--frob"), WRONG_USE), (("profile", MODEL, "text", *SMALL), 0)):
                ended = self.run_program(*arguments, stderr=full)
                self.assertEqual(ended.code, code, f"\n{ended}")
                self.assertEqual(bool(ended.out), code == 0, f"\n{ended}")

    def test_closed_streams(self):
        for closed in ((0,), (1,), (2,), (0, 1), (0, 1, 2)):
            with self.subTest(closed=closed):
                ended = self.run_program("profile", MODEL, "text", *SMALL, "--json", "out.json", "--arrays", "out.safetensors",
                                         preexec_fn=lambda: [os.close(i) for i in closed])
                self.assertEqual(ended.code, 0, f"\n{ended}")  # a closed stream is /dev/null
                if os.path.exists(self.path("out.json")):
                    self.load("out.json")
                if os.path.exists(self.path("out.safetensors")):
                    read_safetensors(self.path("out.safetensors"))
                self.assertLessEqual(set(self.files()), {"text", "out.json", "out.safetensors"})
        ended = self.run_program("profile", MODEL, "none", preexec_fn=lambda: os.close(2))
        self.assertEqual((ended.code, ended.out), (FAILED, b""), f"\n{ended}")


class Signals(Test):
    """An interrupt ends the program at once and leaves no file."""

    OUTPUTS = ("--json", "out.json", "--sinkmap", "map.json", "--arrays", "out.safetensors")

    def setUp(self):
        super().setUp()
        self.write("text", words(60000))
        self.work = ("profile", MODEL, "text", "--length", "64", "--prompts", "0", *self.OUTPUTS)

    def wait_for_work(self, process):
        """Until the arrays' temporary file is there: the model is loaded and prompts run."""
        end = time.monotonic() + PATIENCE
        while sum(name.startswith(".sinkscope-") for name in os.listdir(self.folder)) < 3:
            if process.poll() is not None:  # not before: read() waits for the end
                self.fail(f"ended too early: {process.returncode} {process.stderr.read()!r}")
            self.assertLess(time.monotonic(), end, "work does not start")
            time.sleep(0.01)

    def interrupt(self, number, code, pause):
        process = self.start(*self.work, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.wait_for_work(process)
        time.sleep(pause)
        begin = time.monotonic()
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)
        seconds = time.monotonic() - begin
        ended = Ended(self.work, process.returncode, out, err, seconds)
        self.assertEqual(ended.code, code, f"\n{ended}")
        self.assertLess(seconds, 1, f"\n{ended}")
        self.assertEqual(out, b"", f"\n{ended}")
        self.assertNotIn(b"\x1b", err, f"\n{ended}")
        self.assert_no_temporary("text")

    def test_interrupt(self):
        for pause in (0, 0.05, 0.3, 1.0):
            with self.subTest(pause=pause):
                self.interrupt(signal.SIGINT, 130, pause)

    def test_termination(self):
        self.interrupt(signal.SIGTERM, 143, 0.2)

    def test_hangup(self):
        self.interrupt(signal.SIGHUP, 129, 0.2)

    def test_interrupt_while_loading(self):
        for pause in (0.06, 0.1, 0.15):
            process = self.start(*self.work, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            while not [name for name in os.listdir(self.folder) if name != "text"]:  # the program's own main() has begun
                self.assertIsNone(process.poll())
                time.sleep(0.001)
            time.sleep(pause)
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=PATIENCE)
            self.assertEqual(process.returncode, 130)
            self.assert_no_temporary("text")

    def test_interrupt_leaves_the_file_of_before(self):
        self.write("out.json", "before")
        process = self.start(*self.work, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.wait_for_work(process)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)
        self.assert_no_temporary("text", "out.json")
        with open(self.path("out.json")) as file:
            self.assertEqual(file.read(), "before")

    def test_interrupt_while_standard_input_is_read(self):
        process = self.start("profile", MODEL, "-", "--json", "out.json", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(1)
        self.assertIsNone(process.poll())
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(timeout=5), 130)
        for stream in (process.stdin, process.stdout, process.stderr):
            stream.close()
        self.assert_no_temporary("text")

    def test_an_ignored_hangup_stays_ignored(self):
        """nohup."""
        process = self.start(*self.work, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
        self.wait_for_work(process)
        process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        alive = process.poll() is None
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
        self.assertTrue(alive, "nohup does not help")

    def test_ctrl_c_on_a_terminal(self):
        with Terminal(80) as terminal:
            process = terminal.start(self, *self.work)
            while b"%" not in terminal.seen:  # the progress bar
                self.assertTrue(terminal.read(), terminal.seen)
            begin = time.monotonic()
            os.write(terminal.master, b"\x03")
            while terminal.read():
                pass
            code = process.wait(timeout=PATIENCE)
            self.assertEqual(code, 130, terminal.seen[-500:])
            self.assertLess(time.monotonic() - begin, 1)
            self.assertEqual(terminal.screen()[-1].strip(), "", f"the progress bar stays: {terminal.seen[-500:]!r}")
        self.assert_no_temporary("text")


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


def cells(text):
    """Columns that a terminal needs."""
    return sum(0 if unicodedata.combining(c) or unicodedata.category(c) == "Cf" else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


class Terminals(Test):
    def setUp(self):
        super().setUp()
        self.write("text", words(400))

    def show(self, columns, *arguments, code=0, **options):
        with Terminal(columns) as terminal:
            self.assertEqual(terminal.run(self, *arguments, **options), code, terminal.seen[-2000:])
            return terminal

    def test_lines_are_not_wider_than_the_terminal(self):
        self.write("wide", "漢字かな交じり文 " * 60 + "é́́ ")
        for columns in (20, 40, 80, 120):
            for text in ("text", "wide"):
                with self.subTest(columns=columns, text=text):
                    shown = self.show(columns, "profile", MODEL, text, "--length", "16", "--prompts", "3", "--min-rows", "1", "--baseline", "random")
                    wide = [line for line in shown.lines() if cells(line) > columns]
                    self.assertEqual(wide, [], f"wider than {columns} columns")

    def test_the_name_inside_the_model_is_shown_safely_and_not_too_wide(self):
        with open(MODEL, "rb") as file:
            head = file.read(1 << 20)
        at = head.index(b"general.name") + len(b"general.name") + 4
        size, = struct.unpack_from("<Q", head, at)
        shutil.copy(MODEL, self.path("model.gguf"))
        os.chmod(self.path("model.gguf"), 0o644)
        for name in ("漢字".encode() * 100, b"\x1b[31m\r\n\x07\xff\xc2\x9b" * 20):
            with self.subTest(name=name[:6]):
                with open(self.path("model.gguf"), "r+b") as file:
                    file.seek(at + 8)
                    file.write(name[:size])
                shown = self.show(40, "profile", "model.gguf", "text", *SMALL, "--json", "out.json", env=environment(NO_COLOR="1"), stderr=subprocess.DEVNULL)
                self.assertEqual([line for line in shown.lines() if cells(line) > 40], [])
                self.assertNotIn(b"\x1b", shown.seen)
                self.assertNotIn(b"\x07", shown.seen)
                self.load("out.json")

    def test_colour_on_a_terminal(self):
        shown = self.show(120, "profile", MODEL, "text", *SMALL)
        self.assertIn(b"\x1b[48;", shown.seen)
        self.assertTrue(shown.seen.rstrip().endswith(b"m") or b"\x1b[0m" in shown.seen)
        for line in shown.seen.split(b"\n"):
            codes = SGR.findall(line)
            self.assertTrue(not codes or codes[-1] == b"\x1b[0m", f"colour runs over the end of a line: {line!r}")

    def test_an_empty_no_color_says_nothing(self):
        self.assertIn(b"\x1b[48;", self.show(120, "profile", MODEL, "text", *SMALL, env=environment(NO_COLOR="")).seen)

    def test_plain_with_no_color_or_on_a_dumb_terminal(self):
        for env in (environment(NO_COLOR="1"), environment(TERM="dumb")):
            with self.subTest(NO_COLOR=env.get("NO_COLOR"), TERM=env["TERM"]):
                shown = self.show(120, "profile", MODEL, "text", *SMALL, env=env, stderr=subprocess.DEVNULL)
                self.assertNotIn(b"\x1b", shown.seen)

    def test_plain_without_a_terminal(self):
        ended = self.works("profile", MODEL, "text", *SMALL, env=environment(COLORTERM="truecolor", COLUMNS="40"))
        self.assertNotIn(b"\x1b", ended.out + ended.err)
        self.assertNotIn(b"\r", ended.out + ended.err)
        self.assertEqual(ended.err, b"")

    def test_plain_and_coloured_say_the_same_words(self):
        def words_of(text):
            return [w for w in re.findall(r"[A-Za-z]{4,}", ESCAPE.sub("", text)) if w not in ("tenths",)]
        plain = self.works("profile", MODEL, "text", *SMALL).out.decode()
        coloured = self.show(2000, "profile", MODEL, "text", *SMALL, stderr=subprocess.DEVNULL).seen.decode()
        self.assertEqual(words_of(plain), words_of(coloured))

    def test_a_terminal_without_size(self):
        with Terminal(0, 0) as terminal:
            self.assertEqual(terminal.run(self, "profile", MODEL, "text", *SMALL), 0, terminal.seen)

    def test_a_tiny_terminal(self):
        for columns in (1, 5):
            self.show(columns, "profile", MODEL, "text", *SMALL)

    def test_the_progress_bar_is_on_a_terminal_only(self):
        work = ("profile", MODEL, "text", "--length", "16", "--prompts", "30")
        with Terminal(80) as terminal:  # stderr a terminal, stdout not
            process = terminal.start(self, *work, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            while terminal.read():
                pass
            self.assertEqual(process.wait(timeout=PATIENCE), 0)
            self.assertRegex(terminal.seen, rb"\d %")
            self.assertIn(b"\r", terminal.seen)
            self.assertEqual("".join(terminal.screen()).strip(), "", "the progress bar stays")
        with Terminal(80) as terminal:  # stdout a terminal, stderr not
            process = terminal.start(self, *work, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
            while terminal.read():
                pass
            err = process.stderr.read()
            process.stderr.close()
            self.assertEqual(process.wait(timeout=PATIENCE), 0)
            self.assertEqual(err, b"")

    def test_an_error_is_not_hidden_behind_the_progress_bar(self):
        shown = self.show(80, "profile", MODEL, "none", code=FAILED)
        self.assertEqual(sum("sinkscope: " in line for line in shown.screen()), 1)

    def test_no_raw_control_characters(self):
        strange = [b"\x1b[31mred", b"\x1b]0;title\x07", b"\x07bell", b"\x9b31m", b"\xff\xfe", b"\xc2\x9b31m", "\u202eturned".encode(), "\u2066isolate".encode(),
                   "\u2028line".encode(), "\ufeffmark".encode(), "\u200bnothing".encode(), b"\x7fdel", b"\x08back", b"\0zero", b"\r\x0b\x0c", "\U000e0001tag".encode(), "😀😀".encode()]
        plenty = b" ".join(strange) * 5
        for start in strange + [plenty]:
            with self.subTest(start=start[:20]):
                self.write("strange", start + b" and " + plenty)
                arguments = ("profile", MODEL, "strange", "--length", "0", "--bos", "never", "--min-rows", "1", "--context", "24", "--epsilon", "0.05")
                ended = self.works(*arguments, "--json", "out.json")
                self.load("out.json")
                self.assert_clean(ended.out)
        self.assert_clean(SGR.sub(b"", self.show(100, *arguments, stderr=subprocess.DEVNULL).seen).replace(b"\r\n", b"\n"))

    def assert_clean(self, output):
        text = output.decode("utf-8")  # throws where it is not
        bad = {c for c in text if c != "\n" and (unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp", "Co") or c in "\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")}
        self.assertEqual(bad, set(), "raw control characters on stdout")


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


class Documents(Test):
    """What the files say, and that they agree with each other."""

    @classmethod
    def setUpClass(cls):
        cls.shared = tempfile.mkdtemp(prefix="sinkscope-cli-")
        cls.addClassCleanup(shutil.rmtree, cls.shared, ignore_errors=True)
        with open(os.path.join(cls.shared, "text"), "w") as file:
            file.write(words(200))
        command = [PROGRAM, "profile", MODEL, "text", "--length", "24", "--prompts", "3", "--baseline", "random", "--baseline", "repeat",
                   "--json", "out.json", "--sinkmap", "map.json", "--arrays", "out.safetensors", "--maps", "0:0", "--maps", "3:1"]
        cls.ended = subprocess.run(command, cwd=cls.shared, env=environment(), capture_output=True, timeout=PATIENCE)
        if cls.ended.returncode != 0:
            raise AssertionError(f"exit code {cls.ended.returncode}: {cls.ended.stderr!r}")
        with open(os.path.join(cls.shared, "out.json"), encoding="utf-8") as file:
            cls.json = json.load(file)
        with open(os.path.join(cls.shared, "map.json"), encoding="utf-8") as file:
            cls.map = json.load(file)
        cls.arrays, cls.metadata = read_safetensors(os.path.join(cls.shared, "out.safetensors"))

    def number(self, value, low=-math.inf, high=math.inf):
        self.assertIn(type(value), (int, float))
        self.assertTrue(low <= value <= high, f"{value} is not in [{low}, {high}]")

    def integer(self, value, low=-math.inf, high=math.inf):
        self.assertIs(type(value), int)
        self.assertTrue(low <= value <= high, f"{value} is not in [{low}, {high}]")

    def text(self, value):
        self.assertIs(type(value), str)
        self.assertTrue(value)

    def rate(self, rate, n):
        self.number(rate["first"], 0, 100)
        self.number(rate["null"], 0, 100)
        low, high = rate["first_ci95"]
        self.assertLessEqual(low - 1e-6, rate["first"])
        self.assertGreaterEqual(high + 1e-6, rate["first"])
        for key, most in (("by_position", 100), ("null_by_position", 100), ("alpha_by_position", 1), ("share_by_position", 1)):
            self.assertEqual(len(rate[key]), n, key)
            for value in rate[key]:
                if value is not None:
                    self.number(value, 0, most)
        self.assertAlmostEqual(rate["first"], rate["by_position"][0], delta=1e-5)

    def test_the_files_are_alone(self):
        self.assertEqual(sorted(os.listdir(self.shared)), ["map.json", "out.json", "out.safetensors", "text"])

    def test_the_profile_has_its_fields(self):
        d = self.json
        self.assertEqual(d["schema"], "sinkscope.profile/1")
        m = d["model"]
        for key in ("file", "architecture", "name", "file_type"):
            self.text(m[key])
        self.assertRegex(m["sha256"], "^[0-9a-f]{64}$")
        for key in ("n_layer", "n_head", "n_head_kv"):
            self.integer(m[key], 1)
        self.assertEqual(os.path.realpath(m["file"]), os.path.realpath(MODEL))
        r = d["run"]
        self.number(r["epsilon"], 0.3, 0.3)
        self.integer(r["length"], 24, 24)
        self.integer(r["n_prompt"], 3, 3)
        self.integer(r["threads"], 1, 4096)
        self.number(r["seconds"], 0)
        self.number(r["tokens_per_second"], 0)
        self.integer(r["peak_rss_bytes"], 1 << 20, 1 << 40)
        for key in ("bos", "kv_type", "isa"):
            self.text(r[key])
        self.rate(d["sink_rate"], 24)
        self.assertEqual([l["layer"] for l in d["layers"]], list(range(m["n_layer"])))
        for layer in d["layers"]:
            self.number(layer["sink_rate_first"], 0, 100)
            self.number(layer["first_share"], 0, 1)
            self.assertEqual([h["head"] for h in layer["heads"]], list(range(m["n_head"])))
            for head in layer["heads"]:
                self.number(head["alpha_first"], 0, 1)
                self.number(head["sink_rate_first"], 0, 100)
                self.number(head["entropy"], 0, math.log(24))
            self.assertAlmostEqual(layer["sink_rate_first"], sum(h["sink_rate_first"] for h in layer["heads"]) / m["n_head"], delta=1e-4)
        for sink in d["sinks"]:
            self.integer(sink["position"], 0, 23)
            self.integer(sink["token"], 0)
            self.assertIs(type(sink["text"]), str)
            self.number(sink["sink_rate"], 25, 100)
            for layer, head in sink["heads"]:
                self.integer(layer, 0, m["n_layer"] - 1)
                self.integer(head, 0, m["n_head"] - 1)
        self.assertEqual([b["kind"] for b in d["baselines"]], ["random", "repeat"])
        for baseline in d["baselines"]:
            self.rate(baseline, 24)
        self.assertTrue(all(type(note) is str for note in d["notes"]))

    def test_the_rate_is_the_mean_over_layers(self):
        rates = [h["sink_rate_first"] for l in self.json["layers"] for h in l["heads"]]
        self.assertAlmostEqual(self.json["sink_rate"]["first"], sum(rates) / len(rates), delta=1e-4)

    def test_the_first_line_is_the_answer(self):
        first = self.ended.stdout.decode().splitlines()[0]
        self.assertIn(f"{self.json['sink_rate']['first']:.0f} %", first)
        self.assertIn(str(sum(len(l["heads"]) for l in self.json["layers"])), first)

    def test_the_sink_map_has_its_fields_and_agrees(self):
        d, m = self.json, self.map
        self.assertEqual(m["schema"], "sinkscope.sinkmap/1")
        self.assertEqual(m["model"]["sha256"], d["model"]["sha256"])
        self.assertEqual(m["bos"], d["run"]["bos"])
        for key in ("epsilon", "length", "n_prompt", "kv_type"):
            self.assertEqual(m["parameters"][key], d["run"][key])
        self.assertEqual([(p["position"], p["token"], p["sink_rate"]) for p in m["positions"]], [(s["position"], s["token"], s["sink_rate"]) for s in d["sinks"]])
        for p, s in zip(m["positions"], d["sinks"]):
            self.assertEqual([h[:2] for h in p["heads"]], s["heads"])
            for layer, head, alpha in p["heads"]:
                self.number(alpha, 0, 1)
                if p["position"] == 0:
                    self.assertAlmostEqual(alpha, d["layers"][layer]["heads"][head]["alpha_first"], delta=1e-5)

    def test_the_arrays_have_their_shapes(self):
        m = self.json["model"]
        shape = [3, m["n_layer"], m["n_head"], 24]
        for name, more in {"column_sum": [], "column_max": [], "column_n_row": [], "entropy": [], "strongest": [], "first_mass": [3], "learned_sink_mass": []}.items():
            self.assertEqual(self.arrays[name][0], shape + more, name)
        self.assertEqual(self.arrays["map"][0], [3, 2, 24, 24])

    def at(self, name, prompt, layer, head):
        shape, values = self.arrays[name]
        n = math.prod(shape[3:])
        first = ((prompt * shape[1] + layer) * shape[2] + head) * n
        return values[first:first + n]

    def heads(self):
        m = self.json["model"]
        return [(l, h) for l in range(m["n_layer"]) for h in range(m["n_head"])]

    def test_column_sums_agree_with_alpha(self):
        for l, h in self.heads():
            alpha = sum(self.at("column_sum", p, l, h)[0] / self.at("column_n_row", p, l, h)[0] for p in range(3)) / 3
            self.assertAlmostEqual(alpha, self.json["layers"][l]["heads"][h]["alpha_first"], delta=1e-5)

    def test_entropies_agree(self):
        for l, h in self.heads():
            entropy = sum(sum(self.at("entropy", p, l, h)) for p in range(3)) / (3 * 24)
            self.assertAlmostEqual(entropy, self.json["layers"][l]["heads"][h]["entropy"], delta=1e-4)

    def test_every_row_gives_away_one(self):
        for p in range(3):
            for l, h in self.heads():
                self.assertAlmostEqual(sum(self.at("column_sum", p, l, h)), 24, delta=1e-2)
                self.assertEqual(list(self.at("column_n_row", p, l, h)), list(range(24, 0, -1)))
                self.assertTrue(all(-1e-6 <= x <= 1 + 1e-5 for x in self.at("column_max", p, l, h)))
                self.assertTrue(all(0 <= k <= row for row, k in enumerate(self.at("strongest", p, l, h))))

    def test_maps_agree_with_column_sums(self):
        values = self.arrays["map"][1]
        for p in range(3):
            for i, (l, h) in enumerate(((0, 0), (3, 1))):
                whole = values[(p * 2 + i) * 576:(p * 2 + i + 1) * 576]
                for row in range(24):
                    self.assertAlmostEqual(sum(whole[row * 24:(row + 1) * 24]), 1, delta=1e-4)
                    self.assertTrue(all(w == 0 for w in whole[row * 24 + row + 1:(row + 1) * 24]), "a row sees what comes later")
                for key, want in enumerate(self.at("column_sum", p, l, h)):
                    self.assertAlmostEqual(sum(whole[key::24]), want, delta=1e-4)

    def test_short_prompts_are_padded(self):
        self.write("tokens", json.dumps([[5, 6, 7, 8, 9], [5, 6]]))
        self.works("profile", MODEL, "--tokens", "tokens", "--arrays", "out", "--maps", "0:0")
        arrays, _ = read_safetensors(self.path("out"))
        for name in ("column_sum", "column_max", "entropy"):
            shape, values = arrays[name]
            self.assertEqual([shape[0], shape[3]], [2, 5])
            n = len(values) // 2
            self.assertFalse(any(math.isnan(v) for v in values[:n]))
            self.assertTrue(all(math.isnan(v) == (i % 5 >= 2) for i, v in enumerate(values[n:])), name)
        n = len(arrays["strongest"][1]) // 2
        self.assertTrue(all((v == -1) == (i % 5 >= 2) for i, v in enumerate(arrays["strongest"][1][n:])))
        self.assertEqual(list(arrays["column_n_row"][1][n:n + 5]), [2, 1, 0, 0, 0])

    def test_standard_input_is_a_text(self):
        text = words(200)
        self.write("text", text)
        self.works("profile", MODEL, "-", *SMALL, "--json", "a.json", stdin=text.encode())
        self.works("profile", MODEL, "text", *SMALL, "--json", "b.json")
        self.assertEqual(self.load("a.json")["layers"], self.load("b.json")["layers"])

    def test_length_zero_takes_each_text_whole(self):
        self.write("a", words(10))
        self.write("b", words(30))
        self.works("profile", MODEL, "a", "b", "--length", "0", "--json", "out.json")
        run = self.load("out.json")["run"]
        self.assertEqual(run["n_prompt"], 2)
        self.assertLess(run["shortest"], run["length"])
        self.assertEqual(run["n_token"], run["shortest"] + run["length"])

    def test_bos_is_one_token_of_the_length(self):
        self.write("text", words(100))
        for mode, first in (("always", True), ("never", False)):
            self.works("profile", MODEL, "text", *SMALL, "--bos", mode, "--json", "out.json")
            d = self.load("out.json")
            self.assertEqual(d["run"]["length"], 16)
            self.assertNotEqual(d["run"]["bos"], "" if first else "first")

    def same_bits(self, *options, threads):
        self.write("text", words(200))
        seen = []
        for n in threads:
            self.works("profile", MODEL, "text", "--length", "40", "--prompts", "2", "--threads", n, *options, "--json", "out.json", "--arrays", "out.safetensors")
            d = self.load("out.json")
            for key in ("threads", "seconds", "tokens_per_second", "peak_rss_bytes"):
                del d["run"][key]
            with open(self.path("out.safetensors"), "rb") as file:
                seen.append((d, file.read()))
        for d, arrays in seen[1:]:  # a whole difference would fill the screen
            self.assertTrue(d == seen[0][0], "the profiles differ")
            self.assertTrue(arrays == seen[0][1], "the arrays differ")

    def test_the_same_bits_for_any_number_of_threads(self):
        self.same_bits(threads=("2", "2", "1", "3"))
        self.same_bits("--no-blas", threads=("1", "2", "3"))

    def test_longer_than_the_training_is_a_note(self):
        with open(MODEL, "rb") as file:
            head = file.read(1 << 22)
        at = head.index(b".context_length") + len(b".context_length")
        self.assertEqual(struct.unpack_from("<I", head, at)[0], 4)  # uint32
        shutil.copy(MODEL, self.path("model.gguf"))
        os.chmod(self.path("model.gguf"), 0o644)
        with open(self.path("model.gguf"), "r+b") as file:
            file.seek(at + 4)
            file.write(struct.pack("<I", 16))
        self.write("text", words(200))
        ended = self.works("profile", "model.gguf", "text", "--length", "32", "--prompts", "2", "--json", "out.json")
        self.assert_sentence(ended, "32", "16", "trained")
        self.assertTrue(any("16" in note for note in self.load("out.json")["notes"]))
        self.assertEqual(self.works("profile", "model.gguf", "text", *SMALL).err, b"")

    def test_strange_names_of_files(self):
        strange = os.fsdecode(b"m\xff\n\x1b[31m.gguf")
        os.symlink(MODEL, self.path(strange))
        self.write("text", words(200))
        ended = self.works("profile", strange, "text", *SMALL, "--json", "out.json", "--arrays", "out\n.safetensors", "--sinkmap", "map.json")
        self.assertNotIn(b"\x1b", ended.out)
        self.load("out.json")
        self.load("map.json")
        read_safetensors(self.path("out\n.safetensors"))


class Golden(Test):
    """Figures of Hugging Face eager attention in float32, by the program itself."""

    def test_tokens_as_they_are_give_the_figures(self):
        with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden", "smollm2-135m-q4_1.json"), encoding="utf-8") as file:
            sets = json.load(file)["sets"]
        for name, golden in sets.items():
            with self.subTest(name):
                self.write("tokens.json", json.dumps(golden["tokens"]))
                self.works("profile", "smollm2-135m", "--tokens", "tokens.json", "--json", "out.json")
                d = self.load("out.json")
                self.assertAlmostEqual(d["sink_rate"]["first"], golden["sink_rate_first"], delta=0.4)
                n = len(golden["alpha_first"])
                off = [abs(head["alpha_first"] - sum(prompt[layer["layer"]][head["head"]] for prompt in golden["alpha_first"]) / n)
                       for layer in d["layers"] for head in layer["heads"]]
                self.assertEqual(len(off), 270)
                self.assertLessEqual(sum(off) / len(off), 0.003)


if __name__ == "__main__":
    if not os.access(PROGRAM, os.X_OK) or not os.path.isfile(MODEL):
        sys.exit(f"cli_test: needs the program '{PROGRAM}' and the model '{MODEL}'; set SINKSCOPE and SINKSCOPE_MODEL")
    unittest.main(verbosity=2)
