"""Hugging Face's eager attention with all weights returned, on the model of a GGUF file: python hf_eager.py FILE TOKENS DECODED

Prints the seconds of the prompt and the tokens per second that follow one by one. Needs torch, transformers and gguf.
"""
import random
import resource
import sys
import time

import torch
from transformers import AutoModelForCausalLM

file, n_token, n_decoded = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
limit = 20 << 30  # a clean error before the machine swaps
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
folder, _, name = file.rpartition("/")
model = AutoModelForCausalLM.from_pretrained(folder or ".", gguf_file=name, attn_implementation="eager", dtype=torch.float32)
random.seed(1)
tokens = torch.tensor([[random.randrange(model.config.vocab_size) for _ in range(n_token + n_decoded)]])
with torch.no_grad():
    start = time.perf_counter()
    out = model(tokens[:, :n_token], output_attentions=True, use_cache=True, logits_to_keep=1)
    middle = time.perf_counter()
    cache = out.past_key_values
    del out
    for i in range(n_token, n_token + n_decoded):
        cache = model(tokens[:, i : i + 1], past_key_values=cache, output_attentions=True, use_cache=True).past_key_values
    print("prefill_s", middle - start, "decode_tokens_per_s", n_decoded / (time.perf_counter() - middle))
