"""Writes what the base model is trained from: a byte-level BPE tokenizer of the data, and the shape of the model.

    python3 scripts/data/base_tokenizer.py OUTPUT_FOLDER

Needs the Python package `tokenizers` (0.23 wrote the files in data/base).
"""

import json
import sys
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

VOCAB_SIZE = 1024
END, PAD = "<|endoftext|>", "<|pad|>"
REVIEWS = Path(__file__).resolve().parents[2] / "data" / "reviews"


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    texts = [row["text"] for row in rows("corpus")]
    texts += [row["prompt"] + row["completion"] for row in rows("sft.train")]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[AddedToken(END, special=True), AddedToken(PAD, special=True)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    end, pad = tokenizer.token_to_id(END), tokenizer.token_to_id(PAD)
    write(folder / "tokenizer_config.json", {
        "add_prefix_space": False,
        "bos_token": END,
        "clean_up_tokenization_spaces": False,
        "eos_token": END,
        "model_max_length": 128,
        "pad_token": PAD,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": END,
    })
    write(folder / "config.json", {
        "activation_function": "gelu_new",
        "architectures": ["GPT2LMHeadModel"],
        "attn_pdrop": 0.0,
        "bos_token_id": end,
        "dtype": "float32",
        "embd_pdrop": 0.0,
        "eos_token_id": end,
        "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05,
        "model_type": "gpt2",
        "n_embd": 128,
        "n_head": 4,
        "n_inner": None,
        "n_layer": 4,
        "n_positions": 128,
        "pad_token_id": pad,
        "resid_pdrop": 0.0,
        "tie_word_embeddings": True,
        "vocab_size": tokenizer.get_vocab_size(),
    })


def rows(name):
    lines = (REVIEWS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def write(path, content):
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
