"""Tiny random GPT-2 folders in every file format that people have on disk, with the SHA-256 of each tensor as f32.

    python scripts/goldens/weights.py

writes tests/goldens/weights/. Needs torch, transformers and safetensors; their versions stand in expected.json.
"""

import hashlib
import json
import shutil
from pathlib import Path

import safetensors
import torch
import transformers
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel

ROOT = Path(__file__).resolve().parents[2] / "tests" / "goldens" / "weights"
SHAPE = dict(vocab_size=11, n_positions=8, n_embd=4, n_layer=2, n_head=2, bos_token_id=10, eos_token_id=10)


def checksums(tensors):
    """name -> [shape, sha256 of the little-endian f32 bytes]"""
    return {
        name: [list(t.shape), hashlib.sha256(t.float().contiguous().numpy().tobytes()).hexdigest()]
        for name, t in sorted(tensors.items())
    }


def model(cls=GPT2LMHeadModel, **overrides):
    torch.manual_seed(0)
    made = cls(GPT2Config(**{**SHAPE, **overrides}))
    # Fresh biases and layer norms are constant, which would hide a mix-up
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return made


def state(made):
    """Every tensor once, without the head that a tied model repeats"""
    tensors = {name: t.detach().clone().contiguous() for name, t in made.state_dict().items()}
    if made.config.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
    return tensors


def with_buffers(tensors):
    """What transformers saved before 4.31"""
    mask = torch.tril(torch.ones(8, 8, dtype=torch.uint8)).view(1, 1, 8, 8)
    for layer in range(SHAPE["n_layer"]):
        tensors[f"h.{layer}.attn.bias"] = mask.clone()
        tensors[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    return tensors


def bare(tensors):
    return {name.removeprefix("transformer."): t for name, t in tensors.items()}


def write_index(folder, name, weight_map):
    (folder / name).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}, indent=1) + "\n")


def halves(tensors):
    names = sorted(tensors)
    middle = len(names) // 2
    return [{n: tensors[n] for n in part} for part in (names[:middle], names[middle:])]


def main():
    shutil.rmtree(ROOT, ignore_errors=True)
    ROOT.mkdir(parents=True)
    expected = {
        "versions": {p.__name__: p.__version__ for p in (torch, transformers, safetensors)},
        "folders": {},
    }

    def folder(name, made, tensors=None):
        path = ROOT / name
        path.mkdir()
        made.config.architectures = [type(made).__name__]
        made.config.save_pretrained(path)
        expected["folders"][name] = checksums(tensors if tensors is not None else state(made))
        return path

    tied = model()
    tied.save_pretrained(folder("safetensors", tied))

    path = folder("sharded", tied)
    parts = halves(state(tied))
    files = [f"model-{i + 1:05}-of-{len(parts):05}.safetensors" for i in range(len(parts))]
    for file, part in zip(files, parts):
        save_file(part, path / file, metadata={"format": "pt"})
    write_index(path, "model.safetensors.index.json", {n: f for f, part in zip(files, parts) for n in part})

    path = folder("bin", tied)
    torch.save(tied.state_dict(), path / "pytorch_model.bin")  # holds the tied head as well

    path = folder("sharded_bin", tied)
    files = [f"pytorch_model-{i + 1:05}-of-{len(parts):05}.bin" for i in range(len(parts))]
    for file, part in zip(files, parts):
        torch.save(part, path / file)
    write_index(path, "pytorch_model.bin.index.json", {n: f for f, part in zip(files, parts) for n in part})

    path = folder("no_prefix", tied)
    save_file(with_buffers(bare(state(tied))), path / "model.safetensors", metadata={"format": "pt"})

    for name, dtype in (("bf16", torch.bfloat16), ("f16", torch.float16), ("f64", torch.float64)):
        cast = {n: t.to(dtype) for n, t in state(tied).items()}
        path = folder(name, tied, cast)
        save_file(cast, path / "model.safetensors", metadata={"format": "pt"})

    untied = model(tie_word_embeddings=False)
    untied.save_pretrained(folder("untied", untied))

    reward = model(GPT2ForSequenceClassification, num_labels=1, pad_token_id=10)
    reward.save_pretrained(folder("reward", reward))

    (ROOT / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
