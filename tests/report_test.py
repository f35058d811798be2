"""Whole-program tests of what is looked at: reports (--report, view) and pictures (--svg)."""

import base64
import json
import math
import os
import re
import struct
import subprocess
import time
import unittest
import xml.etree.ElementTree
import zlib

from program import FAILED, MODEL, PATIENCE, WRONG_USE, Test, read_safetensors, words

TINY = os.environ.get("SINKSCOPE_TINY_MODELS", "")
HAS_APP = os.environ.get("SINKSCOPE_REPORT", "ON") == "ON"
OPEN = '<script id="sinkscope-data" type="application/octet-stream">'
HOSTILE = "</script><script>alert(1)</script> <b>&amp; \"'</b> \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 \U0001f469\u200d\U0001f680 \x01\x1b[31m\x7f\u202e ]]> <!-- "


class Opened:
    """A report's payload: metadata, documents (bytes), arrays (shape, bytes)."""

    def __init__(self, path):
        with open(path, encoding="utf-8") as file:
            self.page = file.read()
        begin = self.page.index(OPEN) + len(OPEN)
        data = self.page[begin:self.page.index("</script>", begin)]
        self.outside = self.page[:begin] + self.page[begin + len(data):]
        payload = zlib.decompress(base64.b64decode(data, validate=True))
        length = struct.unpack("<Q", payload[:8])[0]
        header = json.loads(payload[8:8 + length])
        self.metadata = header.pop("__metadata__")
        self.names = json.loads(self.metadata["names"])
        self.arrays = {}
        for name, a in header.items():
            begin, end = a["data_offsets"]
            assert a["dtype"] == "U8" and math.prod(a["shape"]) == end - begin, name
            self.arrays[name] = a["shape"], payload[8 + length + begin:8 + length + end]
        self.documents = [self.arrays.pop(f"{i}.document")[1] for i in range(len(self.names))]


def of_weight(code):
    return 2 ** ((code - 255) / 25.4) if code else 0


class Reports(Test):
    def setUp(self):
        super().setUp()
        self.write("text", words(400))

    def report(self, name="out.html"):
        opened = Opened(self.path(name))
        self.assertEqual(opened.metadata["schema"], "sinkscope.report/1")
        self.assertRegex(opened.metadata["version"], r"^\d+\.\d+\.\d+$")
        return opened

    def same_sqrt(self, code, alpha):
        self.assertLessEqual(abs(code / 255 - math.sqrt(min(max(alpha, 0), 1))), .5 / 255 + 1e-6, alpha)

    def test_the_documents_are_those_of_json(self):
        for command, options in (("profile", []), ("profile", ["--explain"]), ("explain", ["--perturb", "0"]), ("ablate", ["--edit", "mask:positions=0", "--controls", "1"])):
            with self.subTest(command, options=options):
                self.works(command, MODEL, "text", "--length", "24", "--prompts", "2", *options, "--json", "out.json", "--report", "out.html")
                with open(self.path("out.json"), "rb") as file:
                    self.assertEqual(self.report().documents, [file.read()])
                self.assertEqual(self.report().names, [self.load("out.json")["model"]["name"]])
                self.assertEqual("0.alpha" in self.report().arrays, command == "profile")
        self.works("eval", MODEL, "text", "--tokens", "64", "--budget", "48", "--chunk", "8", "--json", "out.json", "--report", "out.html")
        with open(self.path("out.json"), "rb") as file:
            self.assertEqual(self.report().documents, [file.read()])

    @unittest.skipUnless(TINY, "needs llama.cpp's tiny models")
    def test_a_diffusion_model(self):
        self.write("tokens.json", json.dumps([[(i * 7) % 100 + 3 for i in range(8)]]))
        self.works("denoise", os.path.join(TINY, "llada-dense.gguf"), "--tokens", "tokens.json", "--length", "8", "--block", "8", "--steps", "4", "--mask", "3", "--json", "out.json", "--report", "out.html")
        with open(self.path("out.json"), "rb") as file:
            self.assertEqual(self.report().documents, [file.read()])

    @unittest.skipUnless(TINY, "needs llama.cpp's tiny models")
    def test_models_of_other_shapes(self):
        self.write("tokens.json", json.dumps([[(i * 7 + p) % 100 + 3 for i in range(40 - 9 * p)] for p in range(2)]))
        for model in ("gemma3-dense", "gpt-oss-moe", "jamba-dense", "llada-dense"):  # windows, learned sinks, layers without attention, both ways
            with self.subTest(model):
                self.works("profile", os.path.join(TINY, model + ".gguf"), "--tokens", "tokens.json", "--json", "out.json", "--arrays", "out.st", "--report", "out.html", "--svg", "out.svg")
                xml.etree.ElementTree.parse(self.path("out.svg"))
                self.compare_arrays(self.report(), read_safetensors(self.path("out.st"))[0])

    def compare_arrays(self, report, arrays):
        shape, codes = report.arrays["0.alpha"]
        self.assertEqual(shape, arrays["column_sum"][0])
        for code, total, n_row in zip(codes, arrays["column_sum"][1], arrays["column_n_row"][1]):
            if n_row == 0:
                self.assertEqual(code, 0)
            else:
                self.same_sqrt(code, total / n_row)
        shape, codes = report.arrays["0.bands"]
        self.assertEqual(shape, arrays["bands"][0])
        for code, mean in zip(codes, arrays["bands"][1]):
            self.same_sqrt(code, 0 if math.isnan(mean) else mean)

    def test_arrays_are_coded_within_half_a_step(self):
        self.works("profile", MODEL, "text", "--length", "40", "--prompts", "3", "--arrays", "out.st", "--maps", "0:0", "--maps", "7:2", "--json", "out.json", "--report", "out.html")
        report, (arrays, _) = self.report(), read_safetensors(self.path("out.st"))
        self.assertEqual(self.load("out.json")["run"]["maps"], [[0, 0], [7, 2]])
        self.compare_arrays(report, arrays)
        shape, codes = report.arrays["0.map"]
        self.assertEqual(shape, [3, 2, 40, 40])
        for code, weight in zip(codes, arrays["map"][1]):
            if weight < 1 / 1024:
                self.assertEqual(code, 0)
            else:
                self.assertLessEqual(abs(math.log2(of_weight(code)) - math.log2(min(weight, 1))), .5 / 25.4 + 1e-5)
        # The bands of a head whose maps are whole: means over the pairs that causal attention sees.
        shape, bands = arrays["bands"]
        n_band = shape[2]
        self.assertEqual(n_band, 32)
        for m, (layer, head) in enumerate(((0, 0), (7, 2))):
            total, pairs = [0] * n_band ** 2, [0] * n_band ** 2
            for p in range(3):
                for row in range(40):
                    for key in range(row + 1):
                        at = row * n_band // 40 * n_band + key * n_band // 40
                        total[at] += arrays["map"][1][((p * 2 + m) * 40 + row) * 40 + key]
                        pairs[at] += 1
            first = (layer * shape[1] + head) * n_band ** 2
            for i in range(n_band ** 2):
                if pairs[i] == 0:
                    self.assertTrue(math.isnan(bands[first + i]))
                else:
                    self.assertAlmostEqual(bands[first + i], total[i] / pairs[i], delta=1e-5)

    def test_the_prompts_are_in_the_profile(self):
        self.write("tokens", json.dumps([[1, 504, 2427, 282], [5, 6, 7]]))
        self.works("profile", MODEL, "--tokens", "tokens", "--json", "out.json", "--arrays", "out.st")
        d = self.load("out.json")
        self.assertEqual([p["tokens"] for p in d["prompts"]], [[1, 504, 2427, 282], [5, 6, 7]])
        self.assertEqual([len(p["texts"]) for p in d["prompts"]], [4, 3])
        self.assertEqual(d["prompts"][0]["special"], [True, False, False, False])
        self.assertEqual(d["arrays"], "out.st")

    def test_the_report_alone_holds_the_same_arrays_and_leaves_no_other_file(self):
        command = ["profile", MODEL, "text", "--length", "24", "--prompts", "2", "--maps", "3:1", "--report"]
        self.works(*command, "with.html", "--arrays", "out.st")
        self.works(*command, "alone.html")
        self.assertEqual(self.report("with.html").arrays, self.report("alone.html").arrays)
        self.assert_no_temporary("text", "with.html", "alone.html", "out.st")

    def test_a_view_of_saved_results_is_the_report(self):
        self.works("profile", MODEL, "text", "--length", "24", "--prompts", "2", "--maps", "3:1", "--json", "out.json", "--arrays", "out.st", "--report", "out.html")
        self.works("view", "out.json", "--out", "view.html")
        with open(self.path("out.html"), "rb") as report, open(self.path("view.html"), "rb") as view:
            self.assertEqual(report.read(), view.read())

    def test_a_view_without_the_arrays_says_so(self):
        self.works("profile", MODEL, "text", "--length", "24", "--prompts", "2", "--json", "out.json", "--arrays", "out.st")
        os.rename(self.path("out.st"), self.path("elsewhere"))
        ended = self.works("view", "out.json", "--out", "view.html")
        self.assertIn("out.st", ended.err.decode())
        self.assertEqual(self.report("view.html").arrays, {})

    def test_arrays_that_do_not_fit_are_refused(self):
        self.works("profile", MODEL, "text", "--length", "24", "--prompts", "2", "--json", "out.json", "--arrays", "out.st")
        with open(self.path("out.st"), "rb") as file:
            whole = file.read()
        for damaged in (whole[:-1], whole[:1000], whole[:8], b"", b"x" * 100, struct.pack("<Q", 1 << 60) + whole[8:]):
            self.write("out.st", damaged)
            self.refused(FAILED, "view", "out.json", "--out", "view.html", says=("out.st", "damaged"))
        self.write("out.st", whole)
        other = self.load("out.json")
        other["run"]["length"] = 25
        self.write("other.json", json.dumps(other))
        self.refused(FAILED, "view", "other.json", "--out", "view.html", says=("24 positions", "25"))

    def test_several_results_have_names_of_their_own(self):
        for length in ("16", "24"):
            self.works("profile", MODEL, "text", "--length", length, "--prompts", "2", "--json", f"{length}.json")
        self.works("view", "16.json", "24.json", "16.json", "--out", "view.html")
        report = self.report("view.html")
        self.assertEqual(report.names, ["16", "24", "16 (2)"])
        self.assertEqual([json.loads(d)["run"]["length"] for d in report.documents], [16, 24, 16])

    def test_a_damaged_document_is_refused_with_the_place(self):
        self.works("profile", MODEL, "text", "--length", "16", "--prompts", "1", "--json", "whole.json")
        for damage, says in ((lambda d: d.pop("layers"), ("its top", "layers")), (lambda d: d.update(sink_rate=5), ("/sink_rate",)),
                             (lambda d: d["layers"][2]["heads"][1].update(sink_rate_first="much"), ("/layers/2/heads/1/sink_rate_first",)), (lambda d: d["model"].pop("n_head"), ("/model", "n_head"))):
            document = self.load("whole.json")
            damage(document)
            self.write("damaged.json", json.dumps(document))
            self.refused(FAILED, "view", "whole.json", "damaged.json", "--out", "view.html", says=("damaged.json", "profile/1", *says))

    def test_a_character_of_several_tokens_stands_in_the_first(self):
        text = "\U0001f469\u200d\U0001f680 \u05e9\u05dc\u05d5\u05dd \u4f60\u597d!"
        self.write("text", text)
        self.works("profile", MODEL, "text", "--length", "0", "--bos", "never", "--json", "out.json")
        [prompt] = self.load("out.json")["prompts"]
        self.assertEqual("".join(prompt["texts"]), text)
        self.assertIn("", prompt["texts"])

    def test_what_cannot_be_viewed_is_refused(self):
        self.works("profile", MODEL, "text", "--length", "16", "--prompts", "1", "--json", "profile")
        self.works("eval", MODEL, "text", "--tokens", "40", "--budget", "40", "--json", "eval")
        self.write("map", json.dumps({"schema": "sinkscope.sinkmap/1"}))
        self.write("foreign", "{}")
        self.write("list", "[1]")
        self.write("broken", "{")
        os.mkdir(self.path("folder"))
        for code, arguments, says in ((WRONG_USE, ["profile", "eval"], ("profile/1", "eval/1", "compared")), (FAILED, ["map"], ("sinkmap/1", "ablate")), (FAILED, ["foreign"], ("no result",)),
                                      (FAILED, ["list"], ("no result",)), (FAILED, ["broken"], ("not JSON",)), (FAILED, ["nowhere"], ("nowhere",)), (FAILED, ["folder"], ("run.toml",)),
                                      (FAILED, ["text"], ("not JSON",)), (FAILED, ["profile", "eval", "broken"], ("not JSON",))):
            with self.subTest(arguments):
                self.refused(code, "view", *arguments, "--out", "view.html", says=says)
        self.refused(WRONG_USE, "view", "profile", says=("--out",))
        self.refused(WRONG_USE, "view", "--out", "view.html", says=("FILE",))
        self.refused(WRONG_USE, "view", "profile", "--out", "profile", says=("profile",))
        self.refused(FAILED, "view", "profile", "--out", "no/such/folder.html", says=("folder",))

    def test_runs_of_the_trainer(self):
        lines = [{"step": s, "tokens": 64 * s, "alpha": .1 * s, "norm_ratio": [1, 2]} for s in range(3)]
        for name, attention, seed in (("a", "softmax", 1), ("b", "softmax", 2), ("c", "sigmoid", 1)):
            os.makedirs(self.path(f"sweep/{name}"))
            self.write(f"sweep/{name}/run.toml", f"[model]\nattention = '{attention}'\nlayers = 4\ntied = true\n[training]\nseed = {seed}\nrate = 0.004\n")
            self.write(f"sweep/{name}/telemetry.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
        self.works("view", "sweep", "--out", "view.html")
        d = json.loads(self.report("view.html").documents[0])
        self.assertEqual((d["schema"], d["title"]), ("sinkscope.training/1", "sweep"))
        self.assertEqual([(r["name"], r["variant"], r["seed"]) for r in d["runs"]],
                         [("a", "model.attention=softmax", 1), ("b", "model.attention=softmax", 2), ("c", "model.attention=sigmoid", 1)])
        self.assertEqual(d["runs"][0]["config"], {"model.attention": "softmax", "model.layers": 4, "model.tied": True, "training.rate": .004, "training.seed": 1})
        self.assertEqual([r["lines"] for r in d["runs"]], [lines] * 3)
        self.works("view", "sweep/a", "sweep/c/", "--out", "view.html")
        self.assertEqual([r["name"] for r in json.loads(self.report("view.html").documents[0])["runs"]], ["a", "c"])
        for schedule, variants in (("constant", {""}), ("cosine", {"training.tokens=64", "training.tokens=128"})):
            with self.subTest(schedule):
                for name, seed in (("a", 1), ("b", 2)):
                    self.write(f"sweep/{name}/run.toml", f"[training]\nseed = {seed}\ntokens = {64 * seed}\nschedule = '{schedule}'\n")
                self.works("view", "sweep/a", "sweep/b", "--out", "view.html")
                self.assertEqual({r["variant"] for r in json.loads(self.report("view.html").documents[0])["runs"]}, variants)
        self.write("sweep/b/telemetry.jsonl", "{\"step\": 1}\nno\n")
        self.refused(FAILED, "view", "sweep", "--out", "other.html", says=("telemetry.jsonl, line 2",))
        self.write("sweep/b/run.toml", "[model\n")
        self.refused(FAILED, "view", "sweep", "--out", "other.html", says=("run.toml, line 1", "TOML"))

    def test_checkpoints_are_a_run_of_the_trainer(self):
        point = {"file": "a.gguf", "sha256": "0", "step": 4, "sink_rate": 0, "sink_null": 0, "alpha": .1, "alpha_null": .05, "strongest": {"layer": 1, "head": 0, "alpha": .3}, "mass": 1, "norm_ratio": [1, 2]}
        e = {"schema": "sinkscope.emergence/1", "answer": "no sink sets in", "points": [point, {**point, "step": 8, "alpha": .2}]}
        self.write("curve.json", json.dumps(e))
        self.works("view", "curve.json", "--out", "view.html")
        d = json.loads(self.report("view.html").documents[0])
        self.assertEqual((d["schema"], d["title"]), ("sinkscope.training/1", "no sink sets in"))
        [run] = d["runs"]
        self.assertEqual((run["name"], run["seed"]), ("curve", None))
        self.assertEqual([(l["step"], l["alpha"], l["strongest"], l["tokens"], l["norm_ratio"], l["top_ratio"]) for l in run["lines"]], [(4, .1, .3, None, [1, 2], []), (8, .2, .3, None, [1, 2], [])])
        del e["points"][1]["alpha"]
        self.write("curve.json", json.dumps(e))
        self.refused(FAILED, "view", "curve.json", "--out", "other.html", says=("curve", "emergence/1"))

    def test_text_of_prompts_stays_text(self):
        self.write("text", HOSTILE * 20)
        self.works("profile", MODEL, "text", "--length", "0", "--json", "out.json", "--report", "out.html", "--svg", "out.svg")
        report = self.report()
        self.assertNotIn("alert(1)", report.page)
        said = "".join(json.loads(report.documents[0])["prompts"][0]["texts"])
        self.assertIn("</script>", said)
        xml.etree.ElementTree.parse(self.path("out.svg"))

    def test_nothing_outside_the_file_is_asked_for(self):
        self.works("profile", MODEL, "text", "--length", "16", "--prompts", "2", "--report", "out.html")
        outside = self.report().outside
        policy = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)"', outside)
        self.assertIsNotNone(policy)
        self.assertIn("default-src 'none'", policy[1])
        self.assertNotRegex(outside, r"""(?i)<(?:script|link|img|iframe)[^>]*\s(?:src|href)=["']?(?!data:)[^"'\s>]""")

    def test_sizes(self):
        self.write("long", words(6000))
        self.works("profile", MODEL, "long", "--length", "64", "--prompts", "64", "--report", "out.html")
        self.assertEqual(self.report().arrays["0.alpha"][0][0], 64)
        self.assertLess(os.path.getsize(self.path("out.html")), 3 << 20)
        maps = [option for i in range(16) for option in ("--maps", f"{i}:{i % 9}")]
        self.works("profile", MODEL, "long", "--length", "2048", "--prompts", "1", *maps, "--report", "out.html")
        self.assertEqual(self.report().arrays["0.map"][0], [1, 16, 2048, 2048])
        self.assertLess(os.path.getsize(self.path("out.html")), 10 << 20)

    def test_wrong_places_are_refused_before_the_work(self):
        for command, options in (("profile", []), ("explain", []), ("ablate", ["--edit", "mask:positions=0"]), ("eval", ["--tokens", "64"])):
            with self.subTest(command):
                self.refused(WRONG_USE, command, MODEL, "text", *options, "--json", "same", "--report", "same", says=("--report", "same"))
                self.refused(WRONG_USE, command, MODEL, "text", *options, "--report", "text", says=("--report", "text"))
                self.refused(WRONG_USE, command, MODEL, "text", *options, "--report", "-", says=("--report",))
                self.refused(FAILED, command, MODEL, "text", *options, "--json", "out.json", "--report", "no/such.html", says=("no/such.html",))
        self.refused(WRONG_USE, "profile", MODEL, "text", "--report", "", says=("--report",))
        self.refused(WRONG_USE, "profile", MODEL, "text", "--maps", "1:1", says=("--report",))

    def test_an_ended_program_leaves_nothing(self):
        self.write("text", words(30000))
        process = self.start("profile", MODEL, "text", "--prompts", "0", "--report", "out.html", "--svg", "out.svg", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + PATIENCE
        while sum(name.startswith(".sinkscope-") for name in os.listdir(self.folder)) < 3 and process.poll() is None and time.monotonic() < end:
            time.sleep(.01)
        time.sleep(.3)
        process.terminate()
        self.assertEqual(process.wait(PATIENCE), 143)
        self.assert_no_temporary("text")


class Pictures(Test):
    def setUp(self):
        super().setUp()
        self.write("text", words(400))

    def picture(self, command, *options):
        self.works(command, MODEL, "text", "--length", "24", "--prompts", "2", *options, "--json", "out.json", "--svg", "out.svg")
        root = xml.etree.ElementTree.parse(self.path("out.svg")).getroot()
        name = "{http://www.w3.org/2000/svg}"
        self.assertEqual(root.tag, name + "svg")
        width, height = float(root.get("width")), float(root.get("height"))
        for box in root.iter(name + "rect"):
            self.assertTrue(0 <= float(box.get("x")) and float(box.get("x")) + float(box.get("width")) <= width + .1 and float(box.get("y")) + float(box.get("height")) <= height + .1)
        return self.load("out.json"), [t.text for t in root.iter(name + "text")], list(root.iter(name + "rect")), list(root.iter(name + "circle"))

    def test_a_profile(self):
        d, texts, boxes, _ = self.picture("profile")
        self.assertIn(d["model"]["name"], texts)
        self.assertIn("layer", texts)
        self.assertIn("position", texts)
        self.assertGreater(len(boxes), d["model"]["n_layer"] * d["model"]["n_head"])
        self.assertGreater(len({box.get("fill") for box in boxes}), 20)

    def test_what_explain_joins(self):
        _, alone, _, _ = self.picture("explain", "--perturb", "0")
        _, joined, _, _ = self.picture("profile", "--explain")
        self.assertTrue(any("hidden states" in text for text in alone) and any("hidden states" in text for text in joined))
        self.assertIn("position", joined)
        self.assertNotIn("position", alone)

    def test_edits(self):
        d, texts, _, dots = self.picture("ablate", "--edit", "mask:positions=0", "--edit", "off-by-one", "--controls", "1")
        for edit in d["edits"]:
            self.assertIn(edit["edit"], texts)
            self.assertIn(f"{edit['loss_change']:+.3f}", texts)
        n_control = sum(edit["control"] is not None for edit in d["edits"])
        self.assertEqual(len(dots), 2 + len(d["edits"]) + n_control)


class WithoutTheApp(Test):
    def test_reports_say_what_is_missing(self):
        self.write("text", words(100))
        self.refused(WRONG_USE, "profile", MODEL, "text", "--report", "out.html", says=("--report", "npm", "--json"))
        self.write("profile", json.dumps({"schema": "sinkscope.profile/1"}))
        self.refused(WRONG_USE, "view", "profile", "--out", "out.html", says=("view", "npm"))


if HAS_APP:
    del WithoutTheApp
else:
    del Reports

if __name__ == "__main__":
    unittest.main()
