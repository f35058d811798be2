"""What the program gives: files, whole or not at all, and what they say."""
import json
import math
import os
import resource
import shutil
import signal
import stat
import struct
import subprocess
import tempfile
import unittest

from program import FAILED, MODEL, PATIENCE, PROGRAM, SMALL, WRONG_USE, Test, as_user, environment, read_safetensors, words


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
        os.symlink("pipe", self.path("to-pipe"))  # as /dev/stdout is, before another command
        self.refuses("--json", "to-pipe", says=("to-pipe", "no regular file"))

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
    unittest.main(verbosity=2)
