"""Whole-program tests of explain, emergence, ablate and denoise, on a real model and on llama.cpp's tiny ones, one per architecture."""

import json
import os
import pathlib
import unittest

from program import FAILED, MODEL, SMALL, WRONG_USE, Test, environment, read_safetensors, words

TINY = os.environ.get("SINKSCOPE_TINY_MODELS", "")
TOKENS = [[(i * 7 + p) % 100 + 3 for i in range(24)] for p in range(2)]
# What llama.cpp's graphs of the tiny models do not name, among those that profile serves.
WITHOUT = {
    "l_out": {"deepseek4-moe", "glm5-next-moe", "hy_v4-moe", "nemotron_h-dense", "nemotron_h_moe-dense", "plamo2-dense", "qwen4exp-moe"},
    "embd": {"bailingmoe3-moe", "kimi-linear-moe", "lfm2-dense", "lfm2moe-moe", "nemotron_h-dense", "nemotron_h_moe-dense", "qwen35-dense", "qwen35moe-moe", "qwen3next-moe"},
    "ffn_inp": {"bailingmoe3-moe", "cohere2-dense", "cohere2moe-moe", "command-r-dense", "falcon-dense", "hrm_text-dense", "kimi-k3-moe", "lfm2-dense", "lfm2moe-moe", "nemotron_h-dense",
                "nemotron_h_moe-dense", "phi2-dense", "phi3-dense", "phimoe-moe", "plamo-dense"},
    "ffn_moe_topk": {"ernie4_5-moe", "paddleocr-moe", "refact-moe"},   # their tiny models have no experts in any layer
    "geometry": {"minimax-m3-moe"},
}


class Explain(Test):
    def test_a_model_is_explained(self):
        self.write("text", words(200))
        ended = self.works("explain", MODEL, "text", "--length", "48", "--prompts", "2", "--json", "out.json", "--arrays", "out.st")
        self.assertIn("hidden state grows most in layer", ended.out.decode())
        e = self.load("out.json")
        self.assertEqual(e["schema"], "sinkscope.explain/1")
        self.assertEqual([l["layer"] for l in e["layers"]], list(range(-1, 30)))
        self.assertEqual(e["missing"], [])
        self.assertTrue(any(o["massive"] and o["position"] == 0 for o in e["outliers"]), "no massive activation on the first token")
        for layer in e["layers"][1:]:
            for h in layer["heads"]:
                gap = h["gap_by_norm"] + h["gap_by_angle"]
                self.assertLess(abs(gap - h["gap"]), 0.5 * abs(h["gap"]) + 4, h)      # what is left is not the main part
                self.assertTrue(0 <= h["null_mass"] <= 1 and 0 <= h["output_share"] <= 1, h)
                self.assertLessEqual(abs(h["cos"]), 1)
        self.assertGreater(e["layers"][-1]["hidden"]["moved"], 0)
        shapes = {name: shape for name, (shape, _) in read_safetensors(self.path("out.st"))[0].items()}
        self.assertEqual(shapes["hidden_norm"], [2, 31, 48])
        self.assertEqual(shapes["key_norm"], [2, 30, 3, 48])
        self.assertEqual(shapes["column_sum"], [2, 30, 9, 48])
        self.assert_no_temporary("text", "out.json", "out.st")

    def test_a_profile_is_explained_in_the_same_run(self):
        self.write("text", words(60))
        self.works("profile", MODEL, "text", *SMALL, "--min-rows", "4", "--explain", "--json", "out.json")
        joined = self.load("out.json")
        self.assertEqual(joined["schema"], "sinkscope.profile/1")
        self.assertEqual(joined["explain"]["schema"], "sinkscope.explain/1")
        self.works("profile", MODEL, "text", *SMALL, "--min-rows", "4", "--json", "plain.json")
        plain = self.load("plain.json")
        self.assertEqual(joined["sink_rate"], plain["sink_rate"])       # looking further changes nothing
        self.assertNotIn("explain", plain)

    def test_hidden_states_are_as_long_as_hugging_face_says(self):
        golden = json.loads((pathlib.Path(__file__).parent / "golden/hidden_norms_smollm2.json").read_text(encoding="utf-8"))
        self.write("tokens.json", json.dumps([golden["tokens"]]))
        self.works("explain", MODEL, "--tokens", "tokens.json", "--perturb", "0", "--arrays", "out.st")
        shape, found = read_safetensors(self.path("out.st"))[0]["hidden_norm"]
        for place, norms in enumerate(golden["norms"]):
            for position, norm in enumerate(norms):
                self.assertLess(abs(found[place * shape[2] + position] - norm), 0.02 * norm, (place, position))

    def test_batches_do_not_matter(self):
        self.write("text", words(120))
        for batch in ("96", "17"):
            self.works("explain", MODEL, "text", "--length", "96", "--prompts", "1", "--batch", batch, "--perturb", "0", "--no-blas", "--kv-type", "f32",
                       "--arrays", f"{batch}.st", "--json", f"{batch}.json")
        whole, parts = (read_safetensors(self.path(f"{b}.st"))[0] for b in ("96", "17"))
        for name in ("hidden_norm", "hidden_top", "key_norm", "value_norm"):
            for x, y in zip(whole[name][1], parts[name][1]):
                self.assertLess(abs(x - y), 2e-2 * abs(x) + 1e-3, name)
        whole, parts = (self.load(f"{b}.json")["layers"][1:] for b in ("96", "17"))
        for a, b in zip((h for l in whole for h in l["heads"]), (h for l in parts for h in l["heads"])):
            for name in ("query_norm", "key_norm", "other_key_norm", "cos", "other_cos", "logit", "other_logit", "null_mass", "output_share", "entropy"):
                self.assertLess(abs(a[name] - b[name]), 2e-2 * abs(a[name]) + 2e-2, (name, a, b))

    def test_what_cannot_be_is_refused(self):
        self.write("text", words(60))
        self.refused(WRONG_USE, "explain", MODEL, "text", "--perturb", "1", says=("--perturb 1",))
        self.refused(WRONG_USE, "explain", MODEL, "text", "--json", "text", says=("--json", "text"))
        self.refused(WRONG_USE, "explain", MODEL, says=("text files",))
        self.refused(FAILED, "explain", "none.gguf", "text", says=("none.gguf",))
        self.refused(FAILED, "explain", MODEL, "text", *SMALL, "--arrays", "no/out.st", says=("no/out.st",))

    @unittest.skipUnless(TINY, "SINKSCOPE_TINY_MODELS is not set")
    def test_every_architecture_is_explained_as_far_as_it_is_profiled(self):
        self.write("tokens.json", json.dumps(TOKENS))
        without = {}
        for name in sorted(os.listdir(TINY)):
            with self.subTest(name):
                model = os.path.join(TINY, name)
                options = ("--tokens", "tokens.json", "--min-rows", "4", "--epsilon", "0.04", "--threads", "1")   # so low that even tokens that see all others evenly are sinks
                profiled = self.run_program("profile", model, *options)
                explained = self.run_program("explain", model, *options, "--perturb", "8", "--json", "out.json")
                self.assertEqual(explained.code, profiled.code, f"\n{explained}")
                if explained.code != 0:
                    self.assert_sentence(explained)
                    continue
                e = self.load("out.json")
                missing = {m.split(":")[0].split()[0].rstrip(",") for m in e["missing"]}
                for what in missing:
                    without.setdefault(what, set()).add(name.removesuffix(".gguf"))
                layers = e["layers"][1:]
                self.assertTrue(any("heads" in l for l in layers), "no attention was looked at")
                self.assertEqual(all("hidden" in l for l in layers), "l_out" not in missing)
                if "l_out" not in missing:
                    self.assertTrue(all(l["hidden"]["norm_first"] > 0 for l in layers if "hidden" in l))
                if e["model"]["n_expert"] > 0 and not missing & {"ffn_moe_topk", "geometry"}:
                    self.assertTrue(e["experts"] and all(x["largest_output"] > 0 for x in e["experts"]), e["experts"])
        self.assertEqual(without, WITHOUT)


class Emergence(Test):
    """One file under several names: its curve is flat, and each point is its profile."""

    def setUp(self):
        super().setUp()
        self.write("text", words(120))
        for name in ("step-0", "run-step1000-f16", "ckpt_200"):
            os.symlink(MODEL, self.path(name + ".gguf"))

    def test_a_curve_by_step(self):
        ended = self.works("emergence", "run-step1000-f16.gguf", "step-0.gguf", "text", "ckpt_200.gguf", *SMALL, "--json", "out.json", "--plot", "out.svg")
        e = self.load("out.json")
        self.assertEqual(e["schema"], "sinkscope.emergence/1")
        self.assertEqual([(p["step"], p["file"]) for p in e["points"]], [(0, "step-0.gguf"), (200, "ckpt_200.gguf"), (1000, "run-step1000-f16.gguf")])
        self.assertIsNone(e["onset"])   # nothing rises
        self.assertIn("no sink sets in up to step 1000", e["answer"])
        self.assertIn(e["answer"], ended.out.decode())
        self.assertEqual(len(e["points"][0]["norm_ratio"]), e["model"]["n_layer"] + 1)
        self.works("profile", MODEL, "text", *SMALL, "--json", "profile.json")
        p = self.load("profile.json")
        for point in e["points"]:
            self.assertEqual((point["sink_rate"], point["sink_null"], point["mass"]), (p["sink_rate"]["first"], p["sink_rate"]["null"], p["mass"]))
            self.assertEqual((point["alpha"], point["alpha_null"]), (p["sink_rate"]["alpha_by_position"][0], p["sink_rate"]["uniform_alpha_by_position"][0]))
            self.assertEqual(point["strongest"]["alpha"], max(h["alpha_first"] for l in p["layers"] for h in l["heads"]))
            self.assertEqual(point["sha256"], p["model"]["sha256"])
        with open(self.path("out.svg"), encoding="utf-8") as file:
            self.assertIn("strongest head", file.read())

    def test_steps_may_be_given(self):
        self.works("emergence", "step-0.gguf", "ckpt_200.gguf", "text", "--steps", "70,30", *SMALL, "--json", "out.json")
        e = self.load("out.json")
        self.assertEqual([(p["step"], p["file"]) for p in e["points"]], [(30, "ckpt_200.gguf"), (70, "step-0.gguf")])
        self.assertTrue(any("step 30, not of an untrained model" in note for note in e["notes"]))

    def test_what_cannot_be(self):
        two = ("step-0.gguf", "ckpt_200.gguf")
        os.symlink(MODEL, self.path("final.gguf"))
        os.symlink(MODEL, self.path("last-200.gguf"))
        self.refused(WRONG_USE, "emergence", says=("FILE",))
        self.refused(WRONG_USE, "emergence", "step-0.gguf", "text", says=("1 checkpoints", "two"))
        self.refused(WRONG_USE, "emergence", *two, says=("text files", "--tokens"))
        self.refused(WRONG_USE, "emergence", *two, "-", says=("standard input", "files"))
        self.refused(WRONG_USE, "emergence", *two, "text", "--steps", "1,2,3", says=("--steps has 3", "2 checkpoints"))
        self.refused(WRONG_USE, "emergence", *two, "text", "--steps", "1,1", says=("both of step 1",))
        self.refused(WRONG_USE, "emergence", *two, "text", "--steps=-1,1", says=("--steps -1",))
        self.refused(WRONG_USE, "emergence", *two, "final.gguf", "text", says=("final.gguf", "--steps"))
        self.refused(WRONG_USE, "emergence", *two, "last-200.gguf", "text", says=("ckpt_200.gguf", "last-200.gguf", "step 200"))
        self.refused(WRONG_USE, "emergence", *two, "text", "--json", "step-0.gguf", says=("--json", "another file"))
        self.refused(FAILED, "emergence", *two, "text", "--plot", "out.svg", env=environment(PATH="/nowhere"), says=("gnuplot",))
        self.refused(FAILED, "emergence", "step-0.gguf", "none-1.gguf", "text", *SMALL, "--json", "out.json", says=("none-1.gguf",))

    @unittest.skipUnless(TINY, "SINKSCOPE_TINY_MODELS is not set")
    def test_another_model_is_no_checkpoint(self):
        self.write("tokens.json", json.dumps(TOKENS))
        for step, name in enumerate(("llama-dense", "qwen2-dense")):
            os.symlink(os.path.join(TINY, name + ".gguf"), self.path(f"tiny-{step}.gguf"))
        self.refused(FAILED, "emergence", "tiny-0.gguf", "tiny-1.gguf", "--tokens", "tokens.json", "--json", "out.json", says=("tiny-1.gguf", "same model"))


class Ablate(Test):
    def test_masking_the_sink_costs_more_than_masking_another_position(self):
        self.write("text", words(200))
        ended = self.works("ablate", MODEL, "text", "--length", "48", "--prompts", "2", "--edit", "mask:positions=0", "--edit", "off-by-one", "--controls", "1", "--json", "out.json")
        self.assertIn("other positions (1 draw)", ended.out.decode())
        a = self.load("out.json")
        self.assertEqual(a["schema"], "sinkscope.ablate/1")
        mask, off = a["edits"]
        self.assertGreater(mask["kl"], 2 * mask["control"]["kl"])
        self.assertEqual(mask["sink_rate"], 0)
        self.assertEqual(mask["control_of"], "positions")
        self.assertIsNone(off["control"])
        low, high = mask["loss_change_ci95"]
        self.assertTrue(low <= mask["loss_change"] <= high)

    def test_edits_at_their_identity_change_nothing(self):
        self.write("text", words(60))
        self.works("ablate", MODEL, "text", *SMALL, "--controls", "0", "--json", "out.json",
                   *[x for e in ("scale:positions=0,gamma=1", "act:beta=1", "clamp:dims=507,limit=1e30", "copies:count=1", "move:to=0") for x in ("--edit", e)])
        for e in self.load("out.json")["edits"]:
            self.assertEqual((e["loss_change"], e["same_top"]), (0, 100), e["edit"])
            self.assertLess(abs(e["kl"]), 1e-6, e["edit"])

    def test_what_cannot_be_is_refused(self):
        self.write("text", words(60))
        self.write("bad.json", "[[1,2],[3]]")
        for spec, code, says in [("masc", WRONG_USE, ("'masc' is no edit", "mask")), ("mask", WRONG_USE, ("needs positions",)), ("mask:positions=0-", WRONG_USE, ("no list",)),
                                 ("zero:dims=9999", WRONG_USE, ("no dimension 9999", "0 to 575")), ("silence-experts:experts=0.0", WRONG_USE, ("no experts",)),
                                 ("sink-logits:file=bad.json", FAILED, ("bad.json", "30 layers")), ("no-bos", FAILED, ("no-bos", "BOS"))]:
            with self.subTest(spec):
                self.refused(code, "ablate", MODEL, "text", *SMALL, "--edit", spec, says=says)
        self.refused(WRONG_USE, "ablate", MODEL, "text", *SMALL, says=("nothing to change", "--edit"))


@unittest.skipUnless(TINY, "SINKSCOPE_TINY_MODELS is not set")
class Denoise(Test):
    def denoise(self, model, *options):
        self.write("tokens.json", json.dumps([[5, 6, 7, 8]]))
        self.works("denoise", os.path.join(TINY, model), "--tokens", "tokens.json", "--length", "24", "--block", "8", "--steps", "12", "--mask", "3", *options, "--json", "out.json")
        return self.load("out.json")

    def models(self):
        return [m for m in sorted(os.listdir(TINY)) if m.split(".")[0].split("-")[0] in ("llada", "dream", "rnd1")]

    def test_the_same_seed_gives_the_same_text_on_any_number_of_threads(self):
        self.assertTrue(self.models())
        for model in self.models():
            with self.subTest(model):
                one = self.denoise(model, "--temperature", "1", "--seed", "4", "--threads", "1")
                self.assertEqual(one["tokens"][:4], [5, 6, 7, 8])
                self.assertNotIn(3, one["tokens"])
                self.assertEqual(len(one["steps"]), 12)
                masked = [s["n_masked"] for s in one["steps"]]
                self.assertEqual((masked[0], sorted(masked, reverse=True)), (24, masked))
                for threads in ("1", "2", "3"):
                    again = self.denoise(model, "--temperature", "1", "--seed", "4", "--threads", threads)
                    self.assertEqual((again["tokens"], again["steps"]), (one["tokens"], one["steps"]))
                self.assertNotEqual(self.denoise(model, "--temperature", "1", "--seed", "5")["tokens"], one["tokens"])

    def test_what_cannot_be_is_refused(self):
        self.write("tokens.json", json.dumps([[5, 6, 7, 8]]))
        diffusion = os.path.join(TINY, self.models()[0])
        self.refused(FAILED, "denoise", MODEL, "--tokens", "tokens.json", says=("no diffusion model", "sinkscope stream"))
        self.refused(FAILED, "stream", diffusion, "--tokens", "3", "--bos", "never", says=("sinkscope denoise",))
        self.refused(WRONG_USE, "denoise", diffusion, "--tokens", "tokens.json", "--steps", "0", says=("--steps 0",))
        self.refused(WRONG_USE, "denoise", diffusion, "--tokens", "tokens.json", "--remasking", "best", says=("--remasking", "confidence or random"))


if __name__ == "__main__":
    unittest.main()
