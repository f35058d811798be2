"""The program at a terminal, and interrupted."""
import os
import re
import shutil
import signal
import struct
import subprocess
import time
import unicodedata
import unittest

from program import ESCAPE, FAILED, MODEL, PATIENCE, SMALL, Ended, Terminal, Test, environment, words

SGR = re.compile(rb"\x1b\[[0-9;]*m")


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


if __name__ == "__main__":
    unittest.main(verbosity=2)
