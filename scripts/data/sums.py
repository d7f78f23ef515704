"""Writes data/sums: sums of two numbers below 100, for fine-tuning, for prompts with an answer, and held out.

    python3 scripts/data/sums.py [--output_dir data/sums] [--start FOLDER]

Python's standard library only, and a fixed seed: the same bytes each time. With --start also the tokenizer and the shape
of the model, for scripts/data/train_tasks.sh.
"""

import argparse
import random
from pathlib import Path

import char_model

SEED = 1977
CHARACTERS = "0123456789+="
HELD_OUT = 1000


def main():
    parser = argparse.ArgumentParser()
    root = Path(__file__).resolve().parents[2]
    parser.add_argument("--output_dir", type=Path, default=root / "data" / "sums")
    parser.add_argument("--start", type=Path, help="folder for the tokenizer and the shape of the model")
    options = parser.parse_args()
    options.output_dir.mkdir(parents=True, exist_ok=True)
    pairs = [(a, b) for a in range(100) for b in range(100)]
    random.Random(SEED).shuffle(pairs)
    for name, part in ("test", pairs[:HELD_OUT]), ("train", pairs[HELD_OUT:]):
        rows = [{"prompt": f"{a}+{b}=", "answer": str(a + b)} for a, b in part]
        char_model.write_rows(options.output_dir / f"{name}.jsonl", rows)
    if options.start:
        char_model.write(options.start, CHARACTERS, layers=4, width=64, heads=4, positions=16)


if __name__ == "__main__":
    main()
