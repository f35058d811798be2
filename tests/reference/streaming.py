"""StreamingLLM (2309.17453) written plainly on torch, as a reference for the memory tests:

    python streaming.py MODEL.gguf TOKENS.json BUDGET SINKS > golden/streaming.json

One token at a time. Each layer keeps the keys before rotation; every step they are rotated by where they stand among the
kept rows. Rows of deep layers stay as they were computed when older rows were still there. Prints the negative log
likelihood of each token but the first. Needs torch, transformers and gguf.
"""
import json
import sys

import torch
from transformers import AutoModelForCausalLM

file, tokens_file, budget, sinks = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
tokens = json.load(open(tokens_file))
folder, _, name = file.rpartition("/")
model = AutoModelForCausalLM.from_pretrained(folder or ".", gguf_file=name, dtype=torch.float32)
config, body = model.config, model.model
n_head, n_kv = config.num_attention_heads, config.num_key_value_heads
d = config.hidden_size // n_head
theta = getattr(config, "rope_theta", None) or config.rope_parameters["rope_theta"]
frequencies = theta ** -(torch.arange(0, d, 2, dtype=torch.float64) / d)


def rotated(x, positions):
    angles = positions.to(torch.float64)[:, None] * frequencies
    cos, sin = torch.cos(angles).float(), torch.sin(angles).float()
    a, b = x[..., : d // 2], x[..., d // 2 :]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def step(token, keys, values):
    x = body.embed_tokens.weight[token]
    for i, layer in enumerate(body.layers):
        a = layer.self_attn
        h = layer.input_layernorm(x)
        q = a.q_proj(h).view(n_head, 1, d)
        if keys[i] is not None and keys[i].shape[1] == budget:  # room for the new row
            keys[i] = torch.cat([keys[i][:, :sinks], keys[i][:, sinks + 1 :]], 1)
            values[i] = torch.cat([values[i][:, :sinks], values[i][:, sinks + 1 :]], 1)
        k, v = a.k_proj(h).view(n_kv, 1, d), a.v_proj(h).view(n_kv, 1, d)
        keys[i] = k if keys[i] is None else torch.cat([keys[i], k], 1)
        values[i] = v if values[i] is None else torch.cat([values[i], v], 1)
        n = keys[i].shape[1]
        turned = rotated(keys[i], torch.arange(n)).repeat_interleave(n_head // n_kv, 0)
        scores = rotated(q, torch.tensor([n - 1])) @ turned.transpose(1, 2) / d**0.5
        out = torch.softmax(scores, -1) @ values[i].repeat_interleave(n_head // n_kv, 0)
        x = x + a.o_proj(out.reshape(-1))
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    return torch.log_softmax(model.lm_head(body.norm(x)), -1)


keys, values, nll = [None] * len(body.layers), [None] * len(body.layers), []
with torch.no_grad():
    for token, following in zip(tokens, tokens[1:]):
        nll.append(-step(token, keys, values)[following].item())
json.dump({"budget": budget, "sinks": sinks, "tokens": tokens, "nll": [round(v, 5) for v in nll]}, sys.stdout)
