"""The report's own tests (apps/report/tests), of the data and in a browser, on reports that the program wrote of the three real models."""

import json
import os
import subprocess
import unittest

from program import MODEL, Test, words
from report_test import HOSTILE, TINY

MODELS = ("smollm2-135m", "gemma3-270m", "qwen2.5-coder-1.5b")
APP = os.environ["SINKSCOPE_REPORT_APP"]  # where npm built it


class Browser(Test):
    def test_reports_of_the_program_in_a_browser(self):
        self.write("text", words(1500))
        self.write("hostile", HOSTILE * 20)
        short = ["text", "--length", "32", "--prompts", "2"]
        os.mkdir(self.path("reports"))
        for model in MODELS:
            self.works("profile", model, *short, "--explain", "--maps", "3:1", "--maps", "13:3", "--baseline", "random", "--report", f"reports/{model}.html")
        self.works("profile", MODEL, "hostile", "--length", "0", "--report", "reports/hostile.html")
        self.works("ablate", MODEL, *short, "--edit", "mask:positions=0", "--edit", "off-by-one", "--controls", "2", "--report", "reports/ablate.html")
        self.works("eval", MODEL, "text", "--policy", "window,streaming", "--budget", "256", "--chunk", "128", "--tokens", "1200", "--report", "reports/eval.html")
        for length in ("24", "48"):
            self.works("profile", MODEL, "text", "--length", length, "--prompts", "4", "--json", f"{length}.json", "--arrays", f"{length}.st")
        self.works("view", "24.json", "48.json", "--out", "reports/compared.html")
        if TINY:
            self.write("tokens.json", json.dumps([[(i * 7) % 100 + 3 for i in range(8)]]))
            self.works("denoise", os.path.join(TINY, "llada-dense.gguf"), "--tokens", "tokens.json", "--length", "16", "--block", "8", "--steps", "8", "--mask", "3", "--report", "reports/denoise.html")
        for script in ("test", "browser"):
            ended = subprocess.run(["npm", "run", "--silent", script], cwd=APP, env={**os.environ, "SINKSCOPE_REPORTS": self.path("reports")}, capture_output=True, text=True)
            self.assertEqual(ended.returncode, 0, ended.stdout[-20000:] + ended.stderr[-2000:])


if __name__ == "__main__":
    unittest.main()
