"""Writes what a tiny model is trained from: a tokenizer of one token a character, and the shape of a GPT-2.

Python's standard library only. Used by walks.py and sums.py.
"""

import json
from pathlib import Path

END, PAD = "<|endoftext|>", "<|pad|>"


def write(folder, characters, *, layers, width, heads, positions):
    """Tokenizer and configuration for texts of these characters; any other character is left out of a text."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    special = [END, PAD]
    write_json(folder / "tokenizer.json", {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": index,
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for index, token in enumerate(special)
        ],
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        # Without it tokens would be joined by spaces
        "decoder": {"type": "Fuse"},
        # Byte-pair encoding without a merge leaves single characters
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: index for index, token in enumerate(special + list(characters))},
            "merges": [],
        },
    })
    write_json(folder / "tokenizer_config.json", {
        "bos_token": END,
        "clean_up_tokenization_spaces": False,
        "eos_token": END,
        "model_max_length": positions,
        "pad_token": PAD,
        "tokenizer_class": "PreTrainedTokenizerFast",
    })
    write_json(folder / "config.json", {
        "activation_function": "gelu_new",
        "architectures": ["GPT2LMHeadModel"],
        "attn_pdrop": 0.0,
        "bos_token_id": 0,
        "dtype": "float32",
        "embd_pdrop": 0.0,
        "eos_token_id": 0,
        "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05,
        "model_type": "gpt2",
        "n_embd": width,
        "n_head": heads,
        "n_inner": None,
        "n_layer": layers,
        "n_positions": positions,
        "pad_token_id": 1,
        "resid_pdrop": 0.0,
        "tie_word_embeddings": True,
        "vocab_size": len(special) + len(characters),
    })


def write_json(path, content):
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
