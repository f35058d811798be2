"""Damaged models and token files: no crash, no hang, one sentence and exit code 1 or 2.

SINKSCOPE_FUZZ_N cases (10,000 unless told), the same ones in each run; SINKSCOPE_FUZZ_SEED gives others.
"""
import collections
import concurrent.futures
import os
import random
import re
import resource
import shutil
import struct
import subprocess
import tempfile
import unittest

PROGRAM = os.environ["SINKSCOPE"]
TINY_MODELS = os.environ["SINKSCOPE_TINY_MODELS"]
N = int(os.environ.get("SINKSCOPE_FUZZ_N", 10000))
SEED = int(os.environ.get("SINKSCOPE_FUZZ_SEED", 1))
BASES = ("llama-dense", "gemma3-dense", "gpt2-dense", "gpt-oss-moe", "jamba-dense")
PATIENCE = 60  # seconds
MEMORY = 8 << 30
ODD_NUMBERS = (0, 1, 2, 3, 255, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
TOKENS = b"[[1, 2, 3], [4, 5]]"


def header_size(model):
    """Where the last tensor is described, and a little more."""
    return model.rfind(b".weight", 0, 1 << 16) + 64 if b".weight" in model[: 1 << 16] else 4096


def flip_bits(rng, data):
    for _ in range(rng.choice((1, 1, 2, 8))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def odd_number(rng, data):
    size, code = rng.choice(((4, "<I"), (8, "<Q")))
    at = rng.randrange(len(data) - size)
    data[at:at + size] = struct.pack(code, rng.choice(ODD_NUMBERS) & ((1 << 8 * size) - 1))


def odd_value(rng, data):
    """The value behind a key, where llama.cpp reads what it then computes with."""
    keys = [m.end() for m in re.finditer(rb"[a-z0-9_]+\.[a-z_.]+[a-z]", bytes(data)) if m.end() + 12 < len(data)]
    at = rng.choice(keys) + 4
    data[at:at + 4] = struct.pack("<I", rng.choice(ODD_NUMBERS) & 0xFFFFFFFF)


def random_bytes(rng, data):
    at = rng.randrange(len(data))
    part = rng.randbytes(rng.randrange(1, 32))
    data[at:at + len(part)] = part


def cut_out(rng, data):
    at = rng.randrange(len(data))
    del data[at:at + rng.randrange(1, 64)]


def double(rng, data):
    at = rng.randrange(len(data))
    part = data[at:at + rng.randrange(1, 200)]
    data[at:at] = part


def truncate(rng, data):
    del data[rng.randrange(len(data)):]


MUTATIONS = (flip_bits, odd_number, odd_number, odd_value, odd_value, random_bytes, cut_out, double, truncate)


def limits():
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class Worker:
    """Runs every second case; its files lie in memory where the system has a place for that."""

    def __init__(self, index, count):
        self.index, self.count = index, count
        self.folder = tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
        self.models = {}
        for name in BASES:
            with open(os.path.join(TINY_MODELS, name + ".gguf"), "rb") as file:
                self.models[name] = file.read()

    def path(self, name):
        return os.path.join(self.folder, name)

    def make(self, case):
        rng = random.Random(SEED * 1000003 + case)
        name = rng.choice(BASES)
        model, tokens = self.models[name], bytearray(TOKENS)
        if case % 10 == 9:
            rng.choice(MUTATIONS[:1] + MUTATIONS[5:])(rng, tokens)
        else:
            size = header_size(model)
            header = bytearray(model[:size])
            mutation = rng.choice(MUTATIONS)
            mutation(rng, header)
            model = bytes(header) if mutation is truncate else bytes(header) + model[size:]
        with open(self.path("model.gguf"), "wb") as file:
            file.write(model)
        with open(self.path("tokens.json"), "wb") as file:
            file.write(tokens)

    def run(self):
        ends, failures = collections.Counter(), []
        command = [PROGRAM, "profile", self.path("model.gguf"), "--tokens", self.path("tokens.json"), "--threads", "1", "--no-blas"]
        for case in range(self.index, N, self.count):
            self.make(case)
            try:
                ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, preexec_fn=limits)
                code, lines = ended.returncode, ended.stderr.decode("utf-8", "replace").splitlines()
            except subprocess.TimeoutExpired:
                code, lines = "hang", []
            errors = [line for line in lines if line.startswith("sinkscope: ") and not line.startswith("sinkscope: note: ")]
            kind = "crash of llama.cpp, said" if any("llama.cpp crashed" in line for line in lines) else code
            ends[kind] += 1
            if code not in (0, 1, 2) or kind != code or len(errors) != (code != 0) or any("internal error" in line for line in lines):
                kept = os.path.join(tempfile.mkdtemp(prefix=f"sinkscope-fuzz-{case}-"), "")
                for file in ("model.gguf", "tokens.json"):
                    shutil.copy(self.path(file), kept)
                failures.append(f"case {case}: {code}, {lines[:3]}: {PROGRAM} profile {kept}model.gguf --tokens {kept}tokens.json "
                                "--threads 1 --no-blas")
                if len(failures) > 5:
                    break
        shutil.rmtree(self.folder)
        return ends, failures


class Fuzz(unittest.TestCase):
    def test_damaged_files_end_in_a_sentence(self):
        count = os.cpu_count() or 1
        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            results = list(pool.map(lambda index: Worker(index, count).run(), range(count)))
        ends = sum((r[0] for r in results), collections.Counter())
        print(f"seed {SEED}, {N} cases: " + ", ".join(f"{n} x {kind}" for kind, n in ends.most_common()))
        self.assertEqual([failure for r in results for failure in r[1]], [])
        self.assertEqual(sum(ends.values()), N)
        self.assertGreater(ends[0], 0)
        self.assertGreater(ends[1], N // 4)


if __name__ == "__main__":
    unittest.main()
