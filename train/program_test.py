#!/usr/bin/env python3
"""sinkscope-train from outside: exit codes, sentences, runs and sweeps that stop and go on.

Environment: SINKSCOPE_TRAIN (the program).
One test: python3 train/program_test.py Runs.test_ctrl_c_and_on_to_the_same_bits
"""

import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

PROGRAM = os.path.abspath(os.environ.get("SINKSCOPE_TRAIN", "build/sinkscope-train"))
FAILED, WRONG_USE, INTERRUPTED = 1, 2, 130
PATIENCE = 300  # seconds; a program that needs longer hangs

RUN = """
[model]
layers = 2
width = 16
heads = 2
kv_heads = 1
head_size = 8
ff_width = 24
[data]
folder = "{data}"
context = 24
[training]
tokens = {tokens}
batch = 4
warmup = 5
checkpoint = 5
measurements = 4
probe = 4
threads = 1
"""
STEP = 4 * 24  # tokens


SHARED = pathlib.Path(tempfile.mkdtemp(prefix="sinkscope-train-"))
TEXT, DATA = SHARED / "text.txt", SHARED / "data"


def setUpModule():
    """Tokens of made-up words, for all tests."""
    unittest.addModuleCleanup(shutil.rmtree, SHARED, ignore_errors=True)
    chosen = random.Random(1)
    syllables = [a + b + c for a in "bdfgklmnprst" for b in "aeiou" for c in ("", "n", "r")]
    words = ["".join(chosen.choices(syllables, k=chosen.randint(1, 3))) for _ in range(400)]
    TEXT.write_text("".join(chosen.choice(words) + chosen.choice([" ", " ", " ", ".\n", ".\f"]) for _ in range(15000)))
    made = subprocess.run([PROGRAM, "prepare", str(TEXT), "--out", str(DATA), "--vocabulary", "512"], capture_output=True, timeout=PATIENCE)
    if made.returncode != 0:
        raise AssertionError(made.stderr)


class Test(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="sinkscope-train-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def start(self, *arguments):
        return subprocess.Popen([PROGRAM, *map(str, arguments)], cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def ended(self, process):
        out, err = process.communicate(timeout=PATIENCE)
        return process.returncode, out, err

    def works(self, *arguments):
        code, out, err = self.ended(self.start(*arguments))
        self.assertEqual(code, 0, err)
        return out, err

    def fails(self, code, parts, *arguments):
        """Ends with the code and one sentence that has all parts."""
        found, out, err = self.ended(self.start(*arguments))
        self.assertEqual(found, code, err)
        self.assertEqual(out, "")
        self.assertTrue(err.startswith("sinkscope-train: ") and err.count("\n") == 1, err)
        for part in parts:
            self.assertIn(part, err)

    def config(self, name="run.toml", steps=40, more=""):
        (self.folder / name).write_text(RUN.format(data=DATA, tokens=steps * STEP) + more)
        return name

    def wait_for(self, condition, process=None):
        end = time.monotonic() + PATIENCE
        while not condition():
            self.assertLess(time.monotonic(), end)
            if process:
                self.assertIsNone(process.poll(), "it has ended already")
            time.sleep(0.005)

    def files(self, folder):
        return {str(f.relative_to(self.folder / folder)) for f in (self.folder / folder).rglob("*") if f.is_file()}

    def content(self, *path):
        return self.folder.joinpath(*path).read_bytes()


class Use(Test):
    def test_what_is_no_command_is_named(self):
        commands = ["prepare", "run", "sweep", "summary", "evaluate", "bigram-backcopy", "keys"]
        self.fails(WRONG_USE, ["'frobnicate' is no command of sinkscope-train", *commands], "frobnicate")
        self.fails(WRONG_USE, ["a command is missing", *commands])
        self.fails(WRONG_USE, ["--out"], "run", self.config())
        self.fails(WRONG_USE, ["--jobs"], "sweep", self.config(), "--out", "x", "--jobs", "0")

    def test_keys_presets_and_variants_are_listed(self):
        out, _ = self.works("keys")
        for word in ("model.attention", "data.packing", "training.exports", "emergence", "diffusion", "kv_bias", "gate_head", "2505.06708"):
            self.assertIn(word, out)

    def test_prepare_says_what_is_wrong(self):
        self.fails(FAILED, ["no-text.txt"], "prepare", "no-text.txt", "--out", "data")
        self.assertFalse((self.folder / "data").exists())
        self.fails(WRONG_USE, ["--out"], "prepare", TEXT)


class Configurations(Test):
    def says(self, parts, text, command="run"):
        (self.folder / "bad.toml").write_text(text)
        self.fails(FAILED, ["bad.toml", *parts], command, "bad.toml", "--out", "out")
        self.assertFalse((self.folder / "out").exists())

    def test_errors_name_file_line_key_and_what_is_allowed(self):
        folder = f'[data]\nfolder = "{DATA}"\n'
        self.says(["line 2", "model.attention", "sofmax", "softmax1"], "[model]\nattention = 'sofmax'\n")
        self.says(["line 2", "model.layers = 0", "from 1 to 64"], "[model]\nlayers = 0\n")
        self.says(["line 2", "model.layers", "whole number"], "[model]\nlayers = 2.5\n")
        self.says(["line 2", "model.tied", "true or false"], "[model]\ntied = 1\n")
        self.says(["line 2", "training.rate", "a number"], "[training]\nrate = 'fast'\n")
        self.says(["line 3", "model.layer is no key", "layers"], "[model]\n\nlayer = 2\n")
        self.says(["line 1", "'modle'", "[model]"], "[modle]\n")
        self.says(["line 1", "huge", "emergence"], "preset = 'huge'\n")
        self.says(["line 1", "TOML"], "[model\n")
        self.says(["data.folder"], "[model]\nlayers = 2\n")
        self.says(["line 2", "model.kv_heads = 2 does not divide model.heads = 3", "divisor"], "[model]\nheads = 3\n" + folder)
        self.says(["line 2", "model.prefix = 300", "data.context = 256"], "[model]\nprefix = 300\n" + folder)
        self.says(["line 2", "model.head_size = 7 is odd", "even"], "[model]\nhead_size = 7\n" + folder)
        self.says(["line 3", "experts_used = 9", "fewer"], "[model]\nexperts = 4\nexperts_used = 9\n" + folder)
        self.says(["line 2", "data.packing = nowhere", "fixed:P"], "[data]\npacking = 'nowhere'\nfolder = 'x'\n")
        self.says(["line 2", "data.packing = fixed:300", "fixed:0 to fixed:255"], "[data]\npacking = 'fixed:300'\nfolder = 'x'\n")

    def test_errors_of_sweeps_do_too(self):
        run = self.config()
        head = self.content(run).decode()
        at = head.count("\n")
        self.says([f"line {at + 2}", "model.attention", "sofmax", "softmax1"], head + "[grid]\n'model.attention' = ['softmax', 'sofmax']\n", "sweep")
        self.says([f"line {at + 2}", "model.attenton"], head + "[[variants]]\n'model.attenton' = 'softmax'\n", "sweep")
        self.says([f"line {at + 2}", "grid.training.seed is no list"], head + "[grid]\n'training.seed' = 1\n", "sweep")
        self.says([f"line {at + 2}", "does not divide"], head + "[grid]\n'model.kv_heads' = [2, 3]\n", "sweep")
        self.says(["line 4", "model.layers = 0"], "title = 'x'\n\n[model]\nlayers = 0\n", "sweep")
        self.says(["line 1", "variants"], "variants = 3\n" + head, "sweep")

    def test_settings_of_the_command_line(self):
        run = self.config()
        self.fails(WRONG_USE, ["training.seed = x", "whole number"], "run", run, "--out", "out", "--set", "training.seed=x")
        self.fails(WRONG_USE, ["'seed'", "training.seed"], "run", run, "--out", "out", "--set", "seed=2")
        self.fails(FAILED, ["missing.toml"], "run", "missing.toml", "--out", "out")
        self.fails(FAILED, ["no-data"], "run", run, "--out", "out", "--set", "data.folder=no-data")
        self.fails(FAILED, ["training.exports", "gate_head"], "run", run, "--out", "out", "--set", "model.attention=gate_head", "--set", "training.exports=true")


class Runs(Test):
    def test_a_run_says_how_it_goes_and_leaves_its_files(self):
        out, err = self.works("run", self.config(), "--out", "run", "--set", "training.exports=true")
        self.assertRegex(out, r"40 steps, .* loss \d")
        self.assertRegex(out, r"first token: .* % of heads sink on it")
        self.assertRegex(err, r"step \d+ of 40 .* s left")
        self.assertLessEqual({"run.toml", "checkpoint.pt", "telemetry.jsonl", "model.gguf", "probe.json", "steps/step-0.gguf", "steps/step-40.gguf"}, self.files("run"))
        lines = [json.loads(line) for line in self.content("run", "telemetry.jsonl").splitlines()]
        self.assertEqual(lines[0]["step"], 0)
        self.assertEqual(lines[-1]["step"], 40)
        self.assertLess(lines[-1]["validation"], lines[0]["validation"])
        self.assertEqual(self.content("run", "steps", "step-40.gguf"), self.content("run", "model.gguf"))

    def test_what_cannot_be_expressed_is_said(self):
        _, err = self.works("run", self.config(), "--out", "run", "--set", "model.attention=gate_head")
        self.assertIn("note: no GGUF is written", err)
        self.assertNotIn("model.gguf", self.files("run"))

    def test_ctrl_c_and_on_to_the_same_bits(self):
        run = self.config(steps=600)
        self.works("run", run, "--out", "whole")
        telemetry = self.folder / "parts" / "telemetry.jsonl"
        process = self.start("run", run, "--out", "parts")
        self.wait_for(lambda: telemetry.exists() and telemetry.read_text().count("\n") >= 2, process)
        process.send_signal(signal.SIGINT)
        code, out, err = self.ended(process)
        self.assertEqual((code, out), (INTERRUPTED, ""), err)
        self.assertRegex(err, r"interrupted at step \d+; the same command goes on")
        self.works("run", run, "--out", "parts")
        for name in ("model.gguf", "telemetry.jsonl", "run.toml"):
            self.assertEqual(self.content("whole", name), self.content("parts", name), name)
        self.fails(FAILED, ["holds another run", "run.toml"], "run", run, "--out", "parts", "--set", "training.seed=2")


class Sweeps(Test):
    NAMES = {f"attention={a},seed={s}" for a in ("softmax", "sigmoid") for s in (1, 2)}
    GRID = "[[variants]]\n'model.attention' = 'softmax'\n[[variants]]\n'model.attention' = 'sigmoid'\n[grid]\n'training.seed' = [1, 2]\n"

    def test_a_killed_sweep_goes_on(self):
        sweep = self.config("sweep.toml", steps=250, more=self.GRID)
        arguments = ("sweep", sweep, "--out", "runs", "--jobs", "2")
        process = self.start(*arguments)
        begun = lambda: [f for f in self.folder.glob("runs/*/checkpoint.pt")]
        self.wait_for(lambda: len(begun()) >= 2, process)
        process.kill()
        process.communicate(timeout=PATIENCE)
        time.sleep(0.2)
        before = {f: f.stat().st_mtime_ns for f in begun()}
        time.sleep(1)
        self.assertEqual(before, {f: f.stat().st_mtime_ns for f in begun()}, "its runs go on without it")
        out, err = self.works(*arguments)
        self.assertEqual({f.parent.name for f in self.folder.glob("runs/*/model.gguf")}, self.NAMES)
        self.assertEqual(out.splitlines()[-2:], self.content("runs", "summary.md").decode().splitlines()[-2:])
        self.assertRegex(out, r"\| attention=softmax \| 2 \|")
        self.assertRegex(out, r"\| attention=sigmoid \| 2 \|")
        self.works("run", self.config(steps=250), "--out", "alone", "--set", "model.attention=sigmoid", "--set", "training.seed=2")
        self.assertEqual(self.content("alone", "model.gguf"), self.content("runs", "attention=sigmoid,seed=2", "model.gguf"))
        self.assertNotIn("the shortest run", out)
        self.works("run", self.config(steps=400), "--out", "runs/attention=softmax,seed=1", "--set", "model.attention=softmax", "--set", "training.seed=1")
        out, _ = self.works("summary", sweep, "--out", "runs")
        loss_at_end, loss_at_equal = (part.split("| attention=softmax | 2 | ")[1].split(" | ")[2] for part in out.split("where the shortest run ended"))
        self.assertLess(float(loss_at_end.split()[0]), float(loss_at_equal.split()[0]))

    def test_a_signal_to_it_alone_ends_its_runs(self):
        sweep = self.config("sweep.toml", steps=100000, more=self.GRID)
        process = self.start("sweep", sweep, "--out", "runs", "--jobs", "2")
        self.wait_for(lambda: len(list(self.folder.glob("runs/*/checkpoint.pt"))) >= 2, process)
        process.send_signal(signal.SIGTERM)
        code, _, err = self.ended(process)
        self.assertEqual(code, INTERRUPTED, err)
        self.assertEqual(err.count("interrupted at step"), 2)


class Backcopy(Test):
    SMALL = ["--vocabulary", "12", "--context", "48", "--width", "16", "--batch", "4", "--steps", "10"]

    def test_it_shows_its_measurements(self):
        out, _ = self.works("bigram-backcopy", "--attention", "softmax,relu", *self.SMALL)
        self.assertEqual([line for line in out.splitlines() if line in ("softmax", "relu")], ["softmax", "relu"])
        self.assertRegex(out, r"(?m)^ +10 +-?\d")

    def test_ctrl_c_ends_it(self):
        process = self.start("bigram-backcopy", "--context", "48", "--width", "16", "--batch", "4", "--steps", "100000000")
        self.assertEqual(process.stdout.readline(), "softmax\n")
        process.send_signal(signal.SIGINT)
        self.assertEqual(self.ended(process)[0], INTERRUPTED)

    def test_what_cannot_be(self):
        self.fails(WRONG_USE, ["--attention 'sofmax'", "keys"], "bigram-backcopy", "--attention", "sofmax")
        self.fails(WRONG_USE, ["--triggers 99", "1 to 64"], "bigram-backcopy", "--triggers", "99")
        self.fails(WRONG_USE, ["--context 8"], "bigram-backcopy", "--context", "8")


if __name__ == "__main__":
    unittest.main()
