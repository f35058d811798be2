"""The plugin inside llama.cpp's own programs: they run, and leave what was measured."""
import json
import os
import signal
import subprocess
import tempfile
import time
import unittest

MODEL = os.path.join(os.environ["SINKSCOPE_TINY_MODELS"], "llama-dense.gguf")
REAL_MODEL = os.path.expanduser(os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "sinkscope/models/smollm2-135m.gguf"))
BENCH, CLI, PLUGIN = (os.environ[name] for name in ("LLAMA_BENCH", "LLAMA_CLI", "SINKSCOPE_PLUGIN"))


class Plugin(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.out = os.path.join(self.folder.name, "out.json")
        self.addCleanup(self.folder.cleanup)

    def environment(self, **more):
        return dict(os.environ, GGML_BACKEND_PATH=PLUGIN, **more)

    def run_program(self, *command, **more):
        return subprocess.run(command, env=self.environment(**more), stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=300, check=True)

    def cells(self):
        with open(self.out) as file:
            cells = json.load(file)
        self.assertEqual(cells["schema"], "sinkscope.cells/1")
        return cells

    def test_llama_bench_leaves_attention_by_cell(self):
        ended = self.run_program(BENCH, "-m", MODEL, "-p", "32", "-n", "2", "-r", "1", "-fa", "1", SINKSCOPE_OUT=self.out)
        self.assertIn("sinkscope", ended.stdout)
        layers = self.cells()["layers"]
        self.assertEqual([layer["layer"] for layer in layers], [0, 1])
        for layer in layers:
            self.assertEqual(len(layer["heads"]), 2)
            self.assertGreater(layer["n_query"], 32)
            # A row of n keys sums to 1, so over its cells the mean attention lies between 0 and 1.
            self.assertTrue(all(0 <= alpha <= 1 for alpha in layer["alpha_by_cell"]))
            self.assertGreater(layer["heads"][0]["entropy"], 0)

    def test_llama_cli_leaves_the_sink_of_a_real_model(self):
        # This llama-cli looks at GGML_BACKEND_PATH only when an option names a device, as -ot does.
        command = (CLI, "-m", REAL_MODEL, "-p", "Name the capital of France.", "-n", "8", "-st", "-fa", "on", "--temp", "0", "-ot", "^none=CPU")
        self.run_program(*command, SINKSCOPE_OUT=self.out)
        first = [layer["alpha_by_cell"][0] for layer in self.cells()["layers"]]
        self.assertEqual(len(first), 30)
        self.assertGreater(max(first), 0.5)  # SmolLM2's sink

    def test_without_an_output_file_nothing_is_written(self):
        self.run_program(BENCH, "-m", MODEL, "-p", "8", "-n", "0", "-r", "1", "-fa", "1")
        self.assertEqual(os.listdir(self.folder.name), [])

    def test_without_flash_attention_it_says_why_nothing_was_seen(self):
        self.run_program(BENCH, "-m", MODEL, "-p", "8", "-n", "0", "-r", "1", "-fa", "0", SINKSCOPE_OUT=self.out)
        cells = self.cells()
        self.assertEqual(cells["layers"], [])
        self.assertIn("-fa on", cells["note"])

    def test_a_signal_leaves_what_is_known_so_far(self):
        program = subprocess.Popen((BENCH, "-m", REAL_MODEL, "-p", "32", "-n", "0", "-r", "2000", "-fa", "1"),
                                   env=self.environment(SINKSCOPE_OUT=self.out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 60
            while not os.path.exists(self.out) or not self.cells()["layers"]:
                self.assertLess(time.monotonic(), deadline)
                self.assertIsNone(program.poll())
                time.sleep(0.5)
                with open(f"/proc/{program.pid}/maps", "rb") as maps:
                    loaded = b"libggml-sinkscope" in maps.read()
                if loaded:
                    program.send_signal(signal.SIGUSR1)
            self.assertIsNone(program.poll())
        finally:
            program.kill()
            program.wait()


if __name__ == "__main__":
    unittest.main()
