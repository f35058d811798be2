"""Whole-program tests of what sits on KV memory of our own: eval, calibrate and stream."""

import hashlib
import json
import math
import os
import random
import re
import signal
import subprocess
import time
import unittest

from program import FAILED, MODEL, PATIENCE, SMALL, Terminal, Test, WRONG_USE, environment, words


SAMPLES = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "docs", "samples")


class Eval(Test):
    def setUp(self):
        super().setUp()
        self.write("text", words(400))

    def killed_with_a_state(self, *command):
        process = self.start(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE
        while not os.path.exists(self.path("state")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(.1)
        process.kill()
        process.wait()
        self.assertTrue(os.path.exists(self.path("state")))

    def test_a_row_for_each_policy_and_budget(self):
        ended = self.works("eval", MODEL, "text", "--policy", "window,streaming,h2o,adakv", "--budget", "64,128", "--sinks", "1,4", "--tokens", "200",
                           "--chunk", "16", "--json", "out.json")
        d = self.load("out.json")
        self.assertEqual(d["schema"], "sinkscope.eval/1")
        results = d["results"]
        self.assertEqual([(r["policy"], r["budget_rows"], r["sinks"]) for r in results],
                         [("full", 0, 0), ("window", 64, 0), ("window", 128, 0)] + [("streaming", b, n) for b in (64, 128) for n in (1, 4)] +
                         [(p, b, 0) for p in ("h2o", "adakv") for b in (64, 128)])
        full = results[0]
        self.assertEqual((full["kl"], full["same_top"], len(full["ppl_by_1024"])), (0, 100, 1))
        self.assertAlmostEqual(full["ppl"], full["ppl_by_1024"][0], places=5)
        for r in results[1:]:
            self.assertGreater(r["kl"], 0)
            self.assertLessEqual(r["mean_rows"], r["budget_rows"])
            self.assertLess(r["kv_bytes"], full["kv_bytes"])
            self.assertIn(r["policy"], ended.out.decode())

    def test_a_budget_in_bytes_holds(self):
        self.works("eval", MODEL, "text", "--policy", "window,adakv", "--kv-budget", "4MiB,6144KiB", "--tokens", "300", "--chunk", "16", "--json", "out.json")
        results = self.load("out.json")["results"]
        self.assertEqual(len(results), 5)
        for r, bytes in zip(results[1:], [4 << 20, 6 << 20] * 2):
            self.assertEqual(r["budget_bytes"], bytes)
            self.assertLessEqual(r["kv_bytes"], bytes)
            self.assertGreater(r["kv_bytes"], bytes * .5)
            self.assertGreater(r["budget_rows"], 20)
        for amount, says in [("8", "8 bytes"), ("1MB", "1MB"), ("-3MiB", "-3MiB"), ("MiB", "MiB")]:
            with self.subTest(amount):
                self.refused(WRONG_USE, "eval", MODEL, "text", "--tokens", "200", "--kv-budget", amount, says=(says,))

    def test_recomputing_a_window_that_holds_all_is_full(self):
        self.works("eval", MODEL, "text", "--policy", "recompute", "--budget", "24", "--tokens", "24", "--chunk", "1", "--json", "out.json")
        full, again = self.load("out.json")["results"]
        self.assertAlmostEqual(again["ppl"] / full["ppl"], 1, delta=.02)
        self.assertLess(again["kl"], .01)

    def test_what_cannot_be_is_refused(self):
        for code, options, says in [(WRONG_USE, ["--policy", "fifo"], ("fifo", "streaming")), (WRONG_USE, ["--policy", "h2o,tova,h2o"], ("--policy", "h2o", "twice")), (WRONG_USE, ["--budget", "64,64"], ("64", "twice")), (WRONG_USE, ["--budget", "16"], ("16", "--chunk")),
                                    (WRONG_USE, ["--budget", "0"], ("--budget 0",)), (WRONG_USE, ["--sinks", "-1"], ("--sinks -1",)),
                                    (WRONG_USE, ["--positions", "left"], ("left", "gaps")), (WRONG_USE, ["--protect", "all"], ("all", "first:N")),
                                    (WRONG_USE, ["--tokens", "1"], ("--tokens 1",)), (FAILED, ["--tokens", "100000"], ("text", "100000")),
                                    (WRONG_USE, ["--kv-type", "q5_1"], ("q5_1", "f16")), (WRONG_USE, ["--chunk", "0"], ("--chunk 0",)),
                                    (WRONG_USE, ["--budget", "64", "--kv-budget", "1MiB"], ("--budget", "--kv-budget")),
                                    (WRONG_USE, ["--sinkmap", "text"], ("--sinkmap", "duo")), (WRONG_USE, ["--policy", "sinkmap", "--duo-heads", "text"], ("--duo-heads", "duo")),
                                    (WRONG_USE, ["--policy", "duo", "--sinkmap", "text", "--duo-heads", "other"], ("--sinkmap", "sinkmap")),
                                    (WRONG_USE, ["--policy", "window", "--protect", "first:4"], ("--protect first:4", "window")),
                                    (FAILED, ["--protect", "sinkmap:text"], ("text", "sink map"))]:
            with self.subTest(options):
                self.refused(code, "eval", MODEL, "text", *([] if "--tokens" in options else ["--tokens", "200"]), *options, "--json", "out.json", says=says)
        self.refused(FAILED, "eval", MODEL, "nowhere", says=("nowhere",))
        self.refused(WRONG_USE, "eval", MODEL, says=("TEXT",))

    def test_rows_of_a_sink_map_are_protected(self):
        self.works("profile", MODEL, "text", *SMALL, "--min-rows", "4", "--sinkmap", "map.json")
        self.works("eval", MODEL, "text", "--policy", "knorm", "--budget", "64", "--tokens", "150", "--protect", "sinkmap:map.json", "--json", "a.json")
        self.works("eval", MODEL, "text", "--policy", "knorm", "--budget", "64", "--tokens", "150", "--json", "b.json")
        self.assertTrue(self.load("map.json")["positions"])
        self.assertTrue(math.isfinite(self.load("a.json")["results"][1]["ppl"]))
        self.assertTrue(math.isfinite(self.load("b.json")["results"][1]["ppl"]))
        # An interrupted run goes on with the same map alone.
        self.write("long", words(4000))
        command = ["eval", MODEL, "long", "--tokens", "3500", "--budget", "64", "--alone", "--protect", "sinkmap:map.json", "--resume", "state"]
        self.killed_with_a_state(*command)
        self.write("map.json", json.dumps(self.load("map.json")))
        self.refused(FAILED, *command, says=("state", "other options"))

    def test_types_of_the_memory_are_compared_with_halves(self):
        self.works("eval", MODEL, "text", "--policy", "full,streaming", "--budget", "96", "--kv-type", "f16,q8c,q4c,q4_0", "--tokens", "300", "--json", "out.json")
        results = self.load("out.json")["results"]
        self.assertEqual([(r["policy"], r["kv_type"]) for r in results],
                         [(p, t) for p in ("full", "streaming") for t in ("f16", "q8c", "q4c", "q4_0")])
        by_type = {r["kv_type"]: r for r in results[:4]}
        self.assertLess(by_type["q8c"]["kl"], by_type["q4c"]["kl"])
        self.assertLess(by_type["q4c"]["kl"], by_type["q4_0"]["kl"])
        self.assertLess(by_type["q4c"]["kv_bytes"], by_type["f16"]["kv_bytes"] * .4)

    def test_questions_are_answered_from_what_is_kept(self):
        self.works("eval", MODEL, "--task", "needle", "--policy", "window", "--budget", "48", "--tokens", "128", "--json", "out.json")
        full, window = self.load("out.json")["results"]
        self.assertEqual([(a["length"], a["depth"]) for a in full["answers"]], [(n, d) for n in (32, 64, 128) for d in (0, .25, .5, .75, 1)])
        self.assertEqual(full["accuracy"], 100 * sum(a["expected"] == a["found"] for a in full["answers"]) / 15)
        self.assertGreater(full["accuracy"], 60)
        self.assertLess(window["accuracy"], full["accuracy"])  # keys that were dropped cannot be told
        self.assertNotIn("ppl", full)
        self.works("eval", MODEL, "--task", "lines", "--policy", "window", "--budget", "96", "--tokens", "800", "--json", "out.json")
        for r in self.load("out.json")["results"]:
            self.assertEqual([a["line"] for a in r["answers"]], [10])
        for options, says in [(["--task", "riddle"], ("riddle", "needle")), (["text", "--task", "needle"], ("no TEXT",)), (["--task", "lines", "--tokens", "50"], ("50",)),
                              (["--task", "needle", "--tokens", "100"], ("100",)), ([], ("TEXT",))]:
            with self.subTest(options):
                self.refused(WRONG_USE, "eval", MODEL, *options, says=says)

    def test_results_are_drawn(self):
        self.works("eval", MODEL, "text", "--tokens", "200", "--budget", "64,96", "--json", "out.json", "--plot", "out.svg")
        with open(self.path("out.svg"), encoding="utf-8") as file:
            svg = file.read()
        self.assertTrue(svg.rstrip().endswith("</svg>"))
        for says in ("streaming 64, 4 sinks", "streaming 96, 4 sinks", "full", "memory, MiB", "perplexity"):
            self.assertIn(says, svg)
        self.refused(FAILED, "eval", MODEL, "text", "--tokens", "200", "--plot", "out.svg", env=environment(PATH="/nowhere"), says=("gnuplot",))

    def test_an_interrupted_run_goes_on(self):
        self.write("long", words(3500))
        command = ["eval", MODEL, "long", "--tokens", "2500", "--policy", "snapkv", "--kv-type", "q4c", "--budget", "96", "--alone", "--json", "out.json"]
        self.works(*command)
        whole = self.load("out.json")["results"]
        os.remove(self.path("out.json"))
        self.killed_with_a_state(*command, "--resume", "state")
        self.assertFalse(os.path.exists(self.path("out.json")))
        self.refused(FAILED, *command, "--resume", "state", "--seed", "2", says=("state", "other options"))
        self.refused(FAILED, *command, "--resume", "text", says=("text", "--resume"))
        self.refused(WRONG_USE, *command, "--resume", "long", says=("long", "--resume", "another name"))
        self.refused(FAILED, *command, "--resume", "no/state", says=("no/state",))
        with open(self.path("state"), "rb") as file:
            state = file.read()
        for at in (200, len(state) // 2, len(state) - 5):
            with open(self.path("damaged"), "wb") as file:
                file.write(state[:at] + bytes([state[at] ^ 1]) + state[at + 1:])
            self.refused(FAILED, *command, "--resume", "damaged", says=("damaged", "bytes"))
        self.works(*command, "--resume", "state")
        for a, b in zip(whole, self.load("out.json")["results"]):
            for same in ("policy", "ppl", "ppl_by_1024", "mean_rows"):
                self.assertEqual(a[same], b[same])
            self.assertAlmostEqual(a["kv_bytes"] / b["kv_bytes"], 1, delta=.02)  # what is free in slabs is not saved
        self.assertFalse(os.path.exists(self.path("state")))

    def test_questions_go_on_where_they_were_interrupted(self):
        command = ["eval", MODEL, "--task", "lines", "--policy", "window,snapkv", "--budget", "128", "--tokens", "1000", "--alone", "--json", "out.json"]
        self.works(*command)
        whole = self.load("out.json")["results"]
        self.killed_with_a_state(*command, "--resume", "state")
        self.works(*command, "--resume", "state")
        for a, b in zip(whole, self.load("out.json")["results"], strict=True):
            self.assertEqual([a[same] for same in ("policy", "answers", "mean_rows")], [b[same] for same in ("policy", "answers", "mean_rows")])

    def test_a_policy_that_protects_nothing_says_so(self):
        self.works("eval", MODEL, "text", "--policy", "window,h2o", "--protect", "first:4", "--budget", "64", "--tokens", "80", "--json", "out.json")
        self.assertIn("policy window keeps the newest rows alone: --protect is for the others", self.load("out.json")["notes"])

    def test_a_short_text_shows_what_the_documentation_says(self):
        texts = [open(os.path.join(SAMPLES, name), encoding="utf-8").read() for name in sorted(os.listdir(SAMPLES))]
        self.write("samples", "\n".join(texts))
        command = ["eval", MODEL, "samples", "--tokens", "1024", "--budget", "256", "--sinks", "1", "--json", "out.json"]
        self.works(*command, "--policy", "window,streaming,adakv")
        full, window, streaming, adakv = self.load("out.json")["results"]
        self.assertGreater(window["ppl"], 1.5 * streaming["ppl"])  # without the sink it falls apart, one row mends it
        self.assertLess(adakv["kv_bytes"], .29 * full["kv_bytes"])  # a quarter of the rows, unevenly; on longer texts a head's newest block weighs less
        self.works(*command, "--policy", "full", "--kv-type", "q4c", "--chunk", "64")
        full, coded = self.load("out.json")["results"]
        self.assertAlmostEqual(coded["ppl"] / full["ppl"], 1, delta=.01)
        self.assertLess(coded["kv_bytes"], .33 * full["kv_bytes"])

    def test_alone_nothing_is_compared(self):
        self.works("eval", MODEL, "text", "--tokens", "200", "--policy", "streaming", "--budget", "96", "--json", "both.json")
        self.works("eval", MODEL, "text", "--tokens", "200", "--policy", "streaming", "--budget", "96", "--alone", "--json", "alone.json")
        [alone] = self.load("alone.json")["results"]
        self.assertIsNone(alone["kl"])
        self.assertAlmostEqual(alone["ppl"], self.load("both.json")["results"][1]["ppl"], places=3)
        self.assertEqual([len(alone[by]) for by in ("ppl_by_1024", "tokens_per_second_by_1024", "rss_by_1024")], [1, 1, 1])
        self.assertGreater(alone["rss_by_1024"][0], 10 << 20)

    def test_perplexity_by_1024_tokens_is_shown(self):
        self.write("long", words(1200))
        out = self.works("eval", MODEL, "long", "--tokens", "1100", "--policy", "streaming", "--budget", "96", "--alone", "--chunk", "64", "--json", "out.json").out.decode()
        [result] = self.load("out.json")["results"]
        self.assertEqual(out.split("Perplexity by 1,024 tokens\n")[1].split(), ["streaming", "f16", "4", "96"] + [f"{x:.3f}" for x in result["ppl_by_1024"]])

    def test_skipped_tokens_count_for_nothing(self):
        self.works("eval", MODEL, "text", "--tokens", "200", "--json", "all.json")
        self.works("eval", MODEL, "text", "--tokens", "200", "--skip", "150", "--policy", "recompute,window", "--budget", "64", "--json", "late.json")
        full, late = self.load("all.json")["results"][0], self.load("late.json")["results"]
        self.assertNotEqual(full["ppl"], late[0]["ppl"])
        for r in late:
            self.assertTrue(math.isfinite(r["ppl"]))
            self.assertEqual(len(r["ppl_by_1024"]), 1)
        self.refused(WRONG_USE, "eval", MODEL, "text", "--tokens", "200", "--skip", "199", says=("--skip 199", "198"))


class Calibrate(Test):
    def setUp(self):
        super().setUp()
        self.write("text", words(300))
        self.works("profile", MODEL, "text", *SMALL, "--min-rows", "4", "--sinkmap", "map.json")

    def calibrate(self, *options, **more):
        return self.works("calibrate", MODEL, "text", "--sinkmap", "map.json", "--tokens", "40", "--windows", "24", "--chunk", "20", *options, **more)

    def test_heads_are_measured_and_policies_use_them(self):
        ended = self.calibrate()
        self.assertIn("90 heads on 40 tokens", ended.out.decode())
        c = self.load("map.json")["calibration"]
        self.assertEqual([(h["layer"], h["head_kv"]) for h in c["heads"]], [(l, h) for l in range(30) for h in range(3)])
        for h in c["heads"]:
            self.assertGreaterEqual(h["kl"][0], 0)
            self.assertLess(abs(h["loss"][0]), 1)
        self.assertGreater(max(h["kl"][0] for h in c["heads"]), 1e-6)
        self.works("eval", MODEL, "text", "--policy", "sinkmap,duo", "--budget", "96", "--tokens", "250", "--sinkmap", "map.json", "--json", "out.json")
        with open(self.path("map.json"), "rb") as file:
            self.assertEqual(self.load("out.json")["run"]["sink_maps"], [{"file": "map.json", "sha256": hashlib.sha256(file.read()).hexdigest()}])
        full, *others = self.load("out.json")["results"]
        for r in others:
            self.assertLessEqual(r["mean_rows"], 96)
            self.assertLess(r["kv_bytes"], full["kv_bytes"])

        # DuoAttention's own file says of heads what far_mass says.
        whole = self.load("map.json")
        far = json.loads(json.dumps(whole))
        for i, h in enumerate(far["calibration"]["heads"]):
            h["far_mass"] = i * 37 % 90 / 90
        self.write("far.json", json.dumps(far))
        self.write("heads.tsv", "".join("\t".join(str((3 * l + h) * 37 % 90 / 90) for h in range(3)) + "\n" for l in range(30)))
        duo = ["eval", MODEL, "text", "--policy", "duo", "--budget", "96", "--tokens", "250", "--json", "out.json"]
        self.works(*duo, "--sinkmap", "far.json")
        by_map = self.load("out.json")["results"][1]["ppl"]
        self.works(*duo, "--duo-heads", "heads.tsv")
        self.assertEqual(self.load("out.json")["results"][1]["ppl"], by_map)
        self.assertEqual([m["file"] for m in self.load("out.json")["run"]["sink_maps"]], ["heads.tsv"])
        self.assertNotEqual(others[1]["ppl"], by_map)  # which heads retrieve does matter
        for name, text, says in (("short", "0 0 1\n" * 29, "29 lines"), ("long", "0 0 1\n" * 31, "line 31"), ("narrow", "0 1\n" * 30, "line 1"), ("large", "0 1 1.5\n" * 30, "line 1"), ("words", "a b c\n" * 30, "line 1")):
            with self.subTest(name):
                self.write(name, text)
                self.refused(FAILED, *duo, "--duo-heads", name, says=(name, says))
        self.works("stream", MODEL, "text", "--tokens", "3", "--policy", "duo", "--budget", "96", "--duo-heads", "heads.tsv")
        self.refused(FAILED, "stream", MODEL, "text", "--tokens", "3", "--policy", "duo", "--duo-heads", "nowhere", says=("nowhere",))

        # What was interrupted goes on where it stopped.
        part = json.loads(json.dumps(whole))
        part["calibration"]["heads"] = part["calibration"]["heads"][:85]
        self.write("map.json", json.dumps(part))
        self.refused(FAILED, "eval", MODEL, "text", "--policy", "duo", "--tokens", "100", "--budget", "64", "--sinkmap", "map.json", says=("85 of 90",))
        self.calibrate()
        again = self.load("map.json")
        self.refused(FAILED, "calibrate", MODEL, "text", "--sinkmap", "map.json", "--tokens", "40", "--windows", "25", "--chunk", "20", says=("map.json", "windows", "[24]", "[25]"))
        self.assertEqual(self.load("map.json"), again)
        for a, b in zip(whole["calibration"]["heads"], again["calibration"]["heads"]):
            self.assertEqual(a["layer"], b["layer"])
            self.assertAlmostEqual(a["kl"][0], b["kl"][0], delta=1e-4)
        self.assertEqual(len(again["calibration"]["heads"]), 90)

    def test_what_cannot_be_is_refused(self):
        for code, options, says in [(WRONG_USE, ["--windows", "8"], ("--windows 8",)), (WRONG_USE, ["--windows", "48"], ("--windows 48",)),
                                    (WRONG_USE, ["--bos", "nonsense"], ("nonsense", "never")),
                                    (FAILED, ["--tokens", "5000"], ("text", "5000")), (WRONG_USE, ["--chunk", "0"], ("--chunk 0",))]:
            with self.subTest(options):
                options = dict([("--tokens", "48"), ("--windows", "24"), ("--chunk", "16")] + [tuple(options)])
                self.refused(code, "calibrate", MODEL, "text", "--sinkmap", "map.json", *[x for pair in options.items() for x in pair], says=says)
        self.refused(WRONG_USE, "calibrate", MODEL, "text", "--sinkmap", "map.json", "--tokens", "0", "--windows", "2000", says=("--windows 2000",))
        self.refused(WRONG_USE, "calibrate", MODEL, "text", says=("--sinkmap",))
        self.refused(FAILED, "calibrate", MODEL, "text", "--sinkmap", "text", says=("text", "sink map"))
        other = self.load("map.json")
        other["model"]["sha256"] = "0" * 64
        self.write("other.json", json.dumps(other))
        self.refused(FAILED, "calibrate", MODEL, "text", "--sinkmap", "other.json", says=("another model",))
        for command in (["eval", MODEL, "text", "--tokens", "100", "--policy", "sinkmap", "--sinkmap"], ["stream", MODEL, "text", "--tokens", "1", "--policy", "duo", "--sinkmap"]):
            self.refused(FAILED, *command, "other.json", says=("other.json", "another model"))
        for command in ("eval", "stream"):
            self.refused(FAILED, command, MODEL, "text", "--tokens", "100", "--protect", "sinkmap:other.json", says=("other.json", "another model"))

    def test_a_sink_map_is_of_prompts_that_start_alike(self):
        whole = self.load("map.json")
        self.assertEqual(whole["bos"], "none")
        self.write("first.json", json.dumps({**whole, "bos": "first"}))
        self.refused(FAILED, "calibrate", MODEL, "text", "--sinkmap", "first.json", says=("first.json", "with BOS", "--bos always"))
        for command in ("eval", "stream"):
            self.refused(FAILED, command, MODEL, "text", "--tokens", "100", "--protect", "sinkmap:first.json", says=("first.json", "with BOS"))
            self.refused(FAILED, command, MODEL, "text", "--tokens", "100", "--bos", "always", "--protect", "sinkmap:map.json", says=("map.json", "without BOS"))

    def test_files_that_are_no_sink_maps_are_refused(self):
        whole = self.load("map.json")
        for name, change in [("no-model.json", {"model": None}), ("no-position.json", {"positions": [{}]}), ("no-array.json", {"positions": 3}), ("no-heads.json", {"calibration": {}})]:
            with self.subTest(name):
                self.write(name, json.dumps({**whole, **change}))
                self.refused(FAILED, "calibrate", MODEL, "text", "--sinkmap", name, says=(name, "no sink map"))
                self.refused(FAILED, "eval", MODEL, "text", "--tokens", "100", "--protect", "sinkmap:" + name, says=(name, "no sink map"))
        self.refused(WRONG_USE, "eval", MODEL, "text", "--policy", "sinkmap", "--tokens", "100", "--budget", "64", says=("--sinkmap",))


class Stream(Test):
    SHORT = ["--budget", "48", "--chunk", "16"]

    def setUp(self):
        super().setUp()
        self.write("text", "Once upon a time, in a country far away,")

    def text(self, *options, **more):
        return self.works("stream", MODEL, *options, *self.SHORT, **more).out.decode()

    def test_a_stream_depends_on_its_seed_alone(self):
        one = self.text("text", "--tokens", "80")
        self.assertGreater(len(one), 80)
        self.assertEqual(self.text("text", "--tokens", "80", "--threads", "1"), one)
        self.assertEqual(self.text("-", "--tokens", "80", stdin=b"Once upon a time, in a country far away,"), one)
        self.assertNotEqual(self.text("text", "--tokens", "80", "--seed", "2"), one)

    def test_a_stream_is_not_saved_over_what_it_reads(self):
        self.write("heads.tsv", "0 0 1\n" * 30)
        for save, options in (("text", []), ("./text", []), ("heads.tsv", ["--policy", "duo", "--duo-heads", "heads.tsv"])):
            with self.subTest(save):
                self.refused(WRONG_USE, "stream", MODEL, "text", "--tokens", "2", "--budget", "96", "--save", save, *options, says=("--save", "another file"))
        self.write("empty", "")
        self.refused(FAILED, "stream", MODEL, "empty", "--tokens", "2", says=("empty", "--bos always"))

    def test_a_status_line_stands_below_the_text_and_goes_again(self):
        text = self.text("text", "--tokens", "40")
        with Terminal(90, rows=20) as terminal:
            self.assertEqual(terminal.run(self, "stream", MODEL, "text", "--tokens", "40", *self.SHORT), 0)
            seen = terminal.seen
        self.assertEqual(seen.count(b"\x1b[1;19r"), 1)            # the text scrolls above the last of 20 lines
        status = re.findall(rb"\x1b7\x1b\[20;1H\x1b\[K\x1b\[7m(.*?)\x1b\[0m\x1b8", seen)
        self.assertGreater(len(status), 1)
        for line in status:
            self.assertRegex(line, rb"^(\d+ tokens to read, )?position \d+, \d+ rows, [\d.]+ MiB, [\d.]+ tokens/s$")
        self.assertGreater(seen.rindex(b"\x1b[r"), seen.rindex(b"\x1b[20;1H"))
        between = re.sub(rb"\x1b7.*?\x1b8|\x1b\[[0-9;]*[A-Za-z]|\x1bD", b"", seen).replace(b"\r\n", b"\n").decode()
        self.assertIn(text.strip(), between)                      # nothing of it is lost
        with Terminal(90, rows=20) as terminal:
            terminal.run(self, "stream", MODEL, "text", "--tokens", "20", *self.SHORT, env=environment(TERM="dumb"))
            self.assertNotIn(b"\x1b", terminal.seen)

    def test_a_saved_stream_goes_on_exactly_where_it_stopped(self):
        whole = self.text("text", "--tokens", "90")
        first = self.text("text", "--tokens", "60", "--save", "a.stream")
        second = self.text("--tokens", "30", "--load", "a.stream", "--save", "b.stream")
        self.assertEqual(first[:-1] + second, whole)
        self.assertEqual(self.text("--tokens", "30", "--load", "a.stream"), second)
        sampled = ["--seed", "5", "--temperature", "0.9", "--top-p", "1", "--min-p", "0"]
        whole = self.text("text", "--tokens", "40", *sampled)
        self.assertEqual(self.text("text", "--tokens", "25", *sampled, "--save", "a.stream")[:-1] + self.text("--tokens", "15", *sampled, "--load", "a.stream"), whole)

    def test_every_kind_of_memory_goes_on_where_it_stopped(self):
        self.write("text", words(60))
        for policy, kv_type in [("snapkv", "q4c"), ("h2o", "q8c"), ("adakv", "f16"), ("expected", "f16"), ("criticalkv", "q4_0")]:
            with self.subTest(policy):
                options = ["--policy", policy, "--kv-type", kv_type, "--budget", "56", "--chunk", "16"]
                whole = self.works("stream", MODEL, "text", "--tokens", "20", *options).out
                first = self.works("stream", MODEL, "text", "--tokens", "12", "--save", "a.stream", *options).out
                self.assertEqual(first[:-1] + self.works("stream", MODEL, "--tokens", "8", "--load", "a.stream", *options).out, whole)

    def test_a_save_that_is_killed_leaves_the_old_file_whole(self):
        def content():
            with open(self.path("a.stream"), "rb") as file:
                return file.read()

        def unfinished():
            paths = [self.path(name) for name in os.listdir(self.folder) if name.startswith(".sinkscope-")]
            return sum(os.path.getsize(path) for path in paths)

        self.write("text", words(600))
        options = ["--policy", "full", "--chunk", "64", "--tokens", "2"]
        self.works("stream", MODEL, "text", *options, "--save", "a.stream")
        before, chosen, n_met = content(), random.Random(1), 0
        for _ in range(8):
            old = unfinished()
            process = self.start("stream", MODEL, *options, "--load", "a.stream", "--save", "a.stream", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while unfinished() <= old and process.poll() is None:
                time.sleep(.001)
            time.sleep(chosen.random() * .05)
            n_met += process.poll() is None
            process.kill()
            process.wait()
            after = content()
            head, body = after.split(b"\n", 1)
            self.assertEqual(head.split()[1].decode(), hashlib.sha256(body).hexdigest())
            if unfinished() > old:
                self.assertEqual(after, before)
            before = after
        self.assertGreater(n_met, 0)
        self.works("stream", MODEL, *options, "--load", "a.stream")

    def test_interrupted_it_ends_cleanly(self):
        process = self.start("stream", MODEL, "text", "--save", "a.stream", *self.SHORT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.assertTrue(process.stdout.read(60))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
        self.assertEqual(process.returncode, 0, err)
        self.assertRegex(err, rb"tokens; position \d+, \d+ rows")
        self.text("--tokens", "5", "--load", "a.stream")

    def test_reading_can_be_interrupted_and_goes_on(self):
        self.write("long", words(1000))
        self.text("long", "--tokens", "4", "--temperature", "0", "--save", "whole.stream")
        process = self.start("stream", MODEL, "long", "--tokens", "4", "--temperature", "0", "--save", "a.stream", *self.SHORT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
        self.assertEqual(process.returncode, 0, err)
        self.assertIn(b"note: 0 tokens", err)
        self.text("--tokens", "4", "--temperature", "0", "--load", "a.stream", "--save", "b.stream")
        with open(self.path("b.stream"), "rb") as b, open(self.path("whole.stream"), "rb") as whole:
            self.assertEqual(b.read(), whole.read())

    def test_a_chat_takes_turns(self):
        out = self.text("--chat", "--tokens", "12", "--temperature", "0", "--save", "a.stream", stdin=b"Hello!\nAnd how are you?\n")
        self.assertGreaterEqual(out.count("\n"), 2)
        options = ["--tokens", "12", "--load", "a.stream", "--temperature", "0"]
        self.text("--chat", *options, stdin=b"Good bye.\n")
        self.refused(FAILED, "stream", MODEL, *options, *self.SHORT, says=("a.stream", "with --chat"))

    def test_files_that_are_no_streams_are_refused(self):
        self.text("text", "--tokens", "20", "--save", "a.stream")
        with open(self.path("a.stream"), "rb") as file:
            data = file.read()
        for name, content, says in [("empty", b"", "saved stream"), ("other", b"{}", "saved stream"), ("cut", data[:-9], "damaged"),
                                    ("flipped", data[:5000] + bytes([data[5000] ^ 1]) + data[5001:], "damaged")]:
            with self.subTest(name):
                self.write(name, content)
                self.refused(FAILED, "stream", MODEL, "--load", name, says=(name, says))
        self.refused(FAILED, "stream", "gemma3-270m", "--load", "a.stream", says=("a.stream", "another model"))
        self.refused(FAILED, "stream", MODEL, "--load", "a.stream", "--kv-type", "f32", says=("--kv-type",))
        for option, value, other in [("--policy", "streaming", "tova"), ("--budget", "48", "64"), ("--sinks", "4", "20"), ("--protect", "auto", "first:9"), ("--positions", "auto", "gaps"),
                                     ("--bos", "auto", "never"), ("--temperature", "0.8", "0.7"), ("--top-p", "0.95", "1"), ("--min-p", "0.05", "0"), ("--seed", "1", "5")]:
            options = {"--budget": "48", "--chunk": "16", option: other}
            self.refused(FAILED, "stream", MODEL, "--load", "a.stream", *[x for pair in options.items() for x in pair], says=("a.stream", f"{option} {value}"))
        self.refused(FAILED, "stream", MODEL, "--load", "a.stream", "--chat", *self.SHORT, says=("a.stream", "without --chat"))
        body = b"\xa1\x61a\x01"  # CBOR of something else
        with open(self.path("cbor"), "wb") as file:
            file.write(b"sinkscope.stream/3 " + hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        self.refused(FAILED, "stream", MODEL, "--load", "cbor", says=("cbor", "no stream"))
        self.refused(FAILED, "stream", MODEL, "--load", "nowhere", says=("nowhere",))
        self.refused(FAILED, "stream", MODEL, "text", "--save", "no/folder", says=("no/folder",))

    def test_what_cannot_be_is_refused(self):
        for code, options, says in [(WRONG_USE, ["--temperature", "-1"], ("--temperature",)), (WRONG_USE, ["--top-p", "2"], ("--top-p",)),
                                    (WRONG_USE, ["--policy", "fifo"], ("fifo",)), (WRONG_USE, ["--tokens", "-1"], ("--tokens",)),
                                    (WRONG_USE, ["--chat"], ("--chat", "text")), (WRONG_USE, ["--sinks", "2000"], ("2000",)),
                                    (WRONG_USE, ["--sinks", "-1"], ("-1 sinks",)), (WRONG_USE, ["--budget", "32"], ("32", "--chunk")),
                                    (WRONG_USE, ["--policy", "snapkv", "--budget", "64"], ("64", "last rows"))]:
            with self.subTest(options):
                self.refused(code, "stream", MODEL, "text", *options, says=says)
        self.refused(FAILED, "stream", MODEL, "--bos", "never", says=("nothing to go on from",))

    def test_a_sink_that_would_be_lost_is_told_of(self):
        for options, lost in [(["--sinks", "0"], True), (["--sinks", "0", "--bos", "always"], True), (["--policy", "window", "--bos", "always"], True),
                              ([], False), (["--sinks", "0", "--protect", "first:1"], False), (["--policy", "full"], False)]:
            with self.subTest(options):
                ended = self.works("stream", MODEL, "text", "--tokens", "2", *self.SHORT, *options, "--save", "a.stream")
                self.assertEqual(b"attention sink" in ended.err, lost)
        self.text("text", "--tokens", "2", "--policy", "window", "--save", "a.stream")
        self.assertIn(b"attention sink", self.works("stream", MODEL, "--tokens", "2", *self.SHORT, "--policy", "window", "--load", "a.stream").err)


if __name__ == "__main__":
    unittest.main()
