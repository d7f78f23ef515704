"""tests/goldens/gpt2: tiny random GPT-2s with logits, loss, every parameter's gradient and greedy text of transformers.

    VENV/bin/python scripts/goldens/gpt2.py

Weights are drawn with a larger spread than GPT-2's 0.02, so that no part of the model is close to linear.
"""
import json
import os

import torch
import transformers
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "..", "..", "tests", "goldens", "gpt2")
BASE = dict(vocab_size=61, n_positions=24, n_embd=12, n_layer=2, n_head=3, resid_pdrop=0.0, embd_pdrop=0.0,
            attn_pdrop=0.0, bos_token_id=0, eos_token_id=0, initializer_range=0.3)
CASES = {
    "tied": {},
    "untied_erf": dict(tie_word_embeddings=False, activation_function="gelu", n_inner=20, layer_norm_epsilon=1e-3,
                       scale_attn_by_inverse_layer_idx=True),
    "relu_unscaled": dict(activation_function="relu", scale_attn_weights=False, n_head=2),
    "silu_one_layer": dict(activation_function="silu", n_layer=1, n_head=1, reorder_and_upcast_attn=True),
    "tanh": dict(activation_function="tanh", n_inner=7),
}


def main():
    for name, changes in CASES.items():
        torch.manual_seed(sum(map(ord, name)))
        model = GPT2LMHeadModel(GPT2Config(**(BASE | changes)))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:  # biases and norms away from 0 and 1
                    parameter.add_(0.3 * torch.randn_like(parameter))
        folder = os.path.join(OUT, name)
        model.save_pretrained(folder)
        os.remove(os.path.join(folder, "generation_config.json"))
        ids = torch.randint(0, BASE["vocab_size"], (3, 9))
        lengths = [9, 5, 1]
        logits, total, count = [], 0.0, 0
        for row, length in zip(ids, lengths):
            out = model(input_ids=row[None, :length]).logits[0]
            logits.append(out)
            if length > 1:
                logp = torch.log_softmax(out[:-1], -1).gather(1, row[1:length, None]).sum()
                total, count = total - logp, count + length - 1
        loss = total / count
        loss.backward()
        prompt = ids[0, :4]
        greedy = model.generate(input_ids=prompt[None], attention_mask=torch.ones_like(prompt[None]), do_sample=False,
                                max_new_tokens=16, min_new_tokens=16, pad_token_id=0)[0, 4:]
        arrays = {f"grad.{k}": p.grad.contiguous() for k, p in model.named_parameters()}
        arrays["logits"] = torch.cat([x.detach() for x in logits]).contiguous()
        arrays["loss"] = loss.detach()[None]
        save_file(arrays, os.path.join(folder, "golden.safetensors"))
        with open(os.path.join(folder, "golden.json"), "w") as f:
            json.dump(dict(transformers=transformers.__version__, torch=torch.__version__,
                           sequences=[row[:n].tolist() for row, n in zip(ids, lengths)],
                           prompt=prompt.tolist(), greedy=greedy.tolist()), f)


if __name__ == "__main__":
    main()
