#!/usr/bin/env python3
"""sinkscope-train from outside: exit codes, sentences, runs and sweeps that stop and go on.

Environment: SINKSCOPE_TRAIN (the program).
One test: python3 train/program_test.py Runs.test_ctrl_c_and_on_to_the_same_bits
"""

import json
import os
import pathlib
import random
import re
import resource
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

    def start(self, *arguments, **options):
        return subprocess.Popen([PROGRAM, *map(str, arguments)], cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)

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
        self.assertRegex(out, r"(?m)^training.rate +0.004: ")
        self.assertRegex(out, r"(?m)^data.packing .*use context, document, none, fixed:P, random$")
        sizes = {name: float(size) for name, size in re.findall(r"(?m)^(\w+) +([\d.]+)M parameters", out)}
        self.assertEqual(sizes.keys(), {"emergence", "trial", "peaks", "heads", "scale", "experts", "diffusion"})
        self.assertEqual(sizes["emergence"], 1.33)
        self.assertTrue(all(0.5 <= size <= 14 for size in sizes.values()), sizes)

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
        self.says(["line 2", "data.packing = 'nowhere'", "use context, document, none, fixed:P, random"], "[data]\npacking = 'nowhere'\nfolder = 'x'\n")
        self.says(["line 2", "data.packing = fixed:300", "fixed:0 to fixed:255"], "[data]\npacking = 'fixed:300'\nfolder = 'x'\n")
        self.says(["line 2", "data.packing = 3", "use context, document, none, fixed:P, random"], "[data]\npacking = 3\nfolder = 'x'\n")
        self.says(["line 2", "training.rate = 0", "a number from 1e-09 to 10"], "[training]\nrate = 0\n" + folder)
        self.says(["line 2", "training.rate = 40.25 cannot be"], "[training]\nrate = 40.25\n" + folder)

    def test_what_does_not_go_with_the_rest_is_refused(self):
        folder = f'[data]\nfolder = "{DATA}"\n'
        self.says(["line 2", "data.folder = nope", "cannot read 'nope/tokens.bin'", "prepared"], "[data]\nfolder = 'nope'\n")
        self.says(["line 2", "training.exports = true", "model.attention = gate_head", "sinkscope-train writes no architecture"], "[training]\nexports = true\n[model]\nattention = 'gate_head'\n" + folder)
        self.says(["line 3", "data.context = 8000 is too long", "validation", "tokens"], folder + "context = 8000\n")
        for key, value, needs in (("balance", 0.5, "model.experts"), ("experts_used", 3, "model.experts"), ("experts_shared", 1, "model.experts"), ("clip_gamma", -0.1, "model.attention = clipped"),
                                  ("clip_zeta", 1.5, "model.attention = clipped")):
            self.says(["line 2", f"model.{key} = {value} has no effect without {needs}"], f"[model]\n{key} = {value}\n" + folder)
        self.says(["line 3", "model.rope_base = 500.0 has no effect without model.position = rope"], "[model]\nposition = 'alibi'\nrope_base = 500\n" + folder)

    def test_memory_that_does_not_suffice_is_one_sentence(self):
        run, gb = self.config(), 1 << 30
        limited = lambda *settings: self.ended(subprocess.Popen([PROGRAM, "run", run, "--out", "out", *(word for s in settings for word in ("--set", s))], cwd=self.folder, stdout=subprocess.PIPE,
                                                                stderr=subprocess.PIPE, text=True, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (3 * gb, 3 * gb))))
        code, _, err = limited("training.batch=4096", "model.heads=128", "model.layers=64")
        self.assertEqual(code, FAILED, err)
        self.assertRegex(err, r"run.toml, line 11: data.context = 24 with training.batch = 4096 needs more than .* GB .* there are 3.2; use a smaller")
        self.assertFalse((self.folder / "out").exists())
        code, _, err = limited("training.batch=4096", "model.ff_width=16384")
        self.assertEqual(code, FAILED, err)
        self.assertEqual(err.splitlines()[-1], "sinkscope-train: memory does not suffice; use a smaller context, batch or model")

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
        self.says([f"line {at + 3}", "data.folder = nope", "nope/tokens.bin"], head + f"[grid]\n'training.seed' = [1]\n'data.folder' = ['{DATA}', 'nope']\n", "sweep")
        self.says([f"line {at + 2}", "data.context = 8000 is too long"], head + "[grid]\n'data.context' = [24, 8000]\n", "sweep")
        self.says([f"line {at + 1}", "training.exports", "elu"], head + "exports = true\n[grid]\n'model.attention' = ['softmax', 'elu']\n", "sweep")
        self.says([f"line {at + 2}", "model.clip_gamma = -0.5 has no effect"], head + "[grid]\n'model.clip_gamma' = [-0.03, -0.5]\n", "sweep")
        self.says(["line 2", "model.clip_gamma"], "[model]\nclip_gamma = -0.5\n" + head.replace("[model]\n", "") + "[grid]\n'model.attention' = ['softmax', 'relu']\n", "sweep")

    def test_settings_of_the_command_line(self):
        run = self.config()
        self.fails(WRONG_USE, ["training.seed = x", "whole number"], "run", run, "--out", "out", "--set", "training.seed=x")
        self.fails(WRONG_USE, ["'seed'", "training.seed"], "run", run, "--out", "out", "--set", "seed=2")
        self.fails(FAILED, ["missing.toml"], "run", "missing.toml", "--out", "out")
        self.fails(FAILED, ["run.toml and --set: data.folder = no-data"], "run", run, "--out", "out", "--set", "data.folder=no-data")
        self.fails(FAILED, ["run.toml and --set: training.exports", "gate_head"], "run", run, "--out", "out", "--set", "model.attention=gate_head", "--set", "training.exports=true")
        self.fails(FAILED, ["run.toml and --set: model.balance = 0.5 has no effect"], "run", run, "--out", "out", "--set", "model.balance=0.5")
        self.assertFalse((self.folder / "out").exists())


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
        out, err = self.works("run", "run/run.toml", "--out", "run")
        self.assertIn("run: 40 steps, 0.0M tokens, loss", out)
        self.assertIn("had finished before", out)
        self.assertEqual(err, "")

    def test_what_cannot_be_expressed_is_said(self):
        _, err = self.works("run", self.config(), "--out", "run", "--set", "model.attention=gate_head")
        self.assertIn("note: no GGUF is written", err)
        self.assertNotIn("model.gguf", self.files("run"))
        _, err = self.works("run", self.config(), "--out", "sandwich", "--set", "model.norm=sandwich")
        self.assertIn("note: no GGUF is written: sinkscope-train writes no architecture with model.norm = sandwich", err)

    def test_an_ignored_signal_stays_ignored(self):
        """A shell's background job."""
        process = self.start("run", self.config(steps=60), "--out", "out", preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
        self.wait_for(lambda: (self.folder / "out" / "telemetry.jsonl").exists(), process)
        process.send_signal(signal.SIGINT)
        code, _, err = self.ended(process)
        self.assertEqual(code, 0, err)

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


    def test_a_killed_run_goes_on_to_the_same_bits(self):
        """Killed before its first checkpoint and behind some: what is lost is no more than the steps between checkpoints."""
        every, between = ("--set", "training.measurements=10000"), 50  # each step shows in its telemetry
        run = self.config(steps=300)
        run_to = lambda folder: ("run", run, "--out", folder, "--set", f"training.checkpoint={between}", *every)
        self.works(*run_to("whole"))
        telemetry = self.folder / "parts" / "telemetry.jsonl"
        measured = lambda: json.loads(telemetry.read_text().splitlines()[-1])["step"] if telemetry.exists() else -1
        for kill_at in (3, 120):
            process = self.start(*run_to("parts"))
            self.wait_for(lambda: measured() >= kill_at, process)
            process.kill()
            _, err = process.communicate(timeout=PATIENCE)
            self.assertEqual((self.folder / "parts" / "checkpoint.pt").exists(), kill_at > between)
        killed_at = measured()
        for name in (".sinkscope-aBc123", "steps/.sinkscope-dEf456", ".sinkscope-notes.txt"):  # as a killed save leaves them, and what is none
            (self.folder / "parts" / name).parent.mkdir(exist_ok=True)
            (self.folder / "parts" / name).write_text("half")
        _, err = self.works(*run_to("parts"))
        begun_at = int(re.search(r"step (\d+) of 300", err).group(1)) - 1
        self.assertEqual(begun_at % between, 0)
        self.assertLessEqual(killed_at - begun_at, between)
        self.assertEqual([name for name in self.files("parts") if ".sinkscope-" in name], [".sinkscope-notes.txt"])
        for name in ("model.gguf", "telemetry.jsonl", "run.toml"):
            self.assertEqual(self.content("whole", name), self.content("parts", name), name)

    def test_a_folder_is_of_one_process(self):
        run = self.config(steps=1000000)
        process = self.start("run", run, "--out", "run")
        self.wait_for(lambda: (self.folder / "run" / "checkpoint.pt").exists(), process)
        self.fails(FAILED, ["another process trains in 'run'"], "run", run, "--out", "run")
        process.send_signal(signal.SIGINT)
        self.assertEqual(self.ended(process)[0], INTERRUPTED)


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
        self.assertNotIn("note", err)
        self.works("run", self.config(steps=250), "--out", "alone", "--set", "model.attention=sigmoid", "--set", "training.seed=2")
        self.assertEqual(self.content("alone", "model.gguf"), self.content("runs", "attention=sigmoid,seed=2", "model.gguf"))
        self.assertNotIn("the shortest run", out)
        self.works("run", self.config(steps=400), "--out", "runs/attention=softmax,seed=1", "--set", "model.attention=softmax", "--set", "training.seed=1")
        out, _ = self.works("summary", sweep, "--out", "runs")
        loss_at_end, loss_at_equal = (part.split("| attention=softmax | 2 | ")[1].split(" | ")[2] for part in out.split("where the shortest run ended"))
        self.assertLess(float(loss_at_end.split()[0]), float(loss_at_equal.split()[0]))

    def test_more_threads_than_cores_are_noted(self):
        sweep = self.config("sweep.toml", steps=2, more=self.GRID)
        (self.folder / sweep).write_text((self.folder / sweep).read_text().replace("threads = 1", "threads = 0"))
        _, err = self.works("sweep", sweep, "--out", "runs", "--jobs", "2")
        self.assertRegex(err, r"note: 2 runs at once with \d+ threads each are more than \d+ cores; use training.threads = \d")

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
