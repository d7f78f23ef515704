"""Rows as TRL's data_utils convert them: tests/goldens/data/convert.json, read by tests/convert.rs.

Run: python scripts/goldens/convert.py    (needs trl 1.16)
"""

import json
from pathlib import Path

import trl
from datasets import Dataset
from trl import extract_prompt, maybe_convert_to_chatml, unpair_preference_dataset

HERE = Path(__file__).resolve().parents[2] / "tests" / "goldens"


def rows(name, count=6):
    lines = (HERE / "trl" / name).read_text().splitlines()[:count]
    return [json.loads(line) for line in lines]


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


implicit = rows("implicit.jsonl") + [
    {"chosen": "The sky is blue.", "rejected": "The sky is green."},
    {"chosen": "naïve café ☕ yes", "rejected": "naïve café ☕ no"},
]
implicit_chat = [
    {
        "chosen": [user("What color is the sky?"), assistant("It is blue.")],
        "rejected": [user("What color is the sky?"), assistant("It is green.")],
    },
    {
        "chosen": [user("a"), assistant("b"), user("c"), assistant("d")],
        "rejected": [user("a"), assistant("b"), user("c"), assistant("e")],
    },
]
# More rows than TRL converts at a time: the order of the result shows the blocks
pairs = [{"prompt": f"p{i}", "chosen": f" c{i}", "rejected": f" r{i}", "id": i} for i in range(1003)]
sharegpt = [
    {"conversations": [{"from": "user", "value": "q"}, {"from": "assistant", "value": "a"}], "source": "x"},
    {"conversations": [{"from": "human", "value": "é"}], "source": "y"},
]


def unpaired(found):
    return list(unpair_preference_dataset(Dataset.from_list(found)))


cases = [
    {"flags": ["--format", "preference"], "from": found, "to": [extract_prompt(dict(row)) for row in found]}
    for found in (implicit, implicit_chat)
]
cases += [
    {"flags": ["--format", "unpaired_preference"], "from": found, "to": unpaired(found)}
    for found in (rows("preference.jsonl"), rows("chat_preference.jsonl"), pairs)
]
cases.append({
    "flags": ["--chatml"],
    "from": sharegpt,
    "to": [maybe_convert_to_chatml(json.loads(json.dumps(row))) for row in sharegpt],
})
# The long one is told apart by its numbers alone
for case in cases:
    if case["from"] is pairs:
        case["from"], case["to"] = "pairs", [[row["id"], row["label"]] for row in case["to"]]
out = HERE / "data" / "convert.json"
out.write_text(json.dumps({"trl": trl.__version__, "cases": cases}, ensure_ascii=False, indent=1) + "\n")
