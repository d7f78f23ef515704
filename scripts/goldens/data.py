"""Goldens of the `data` room, from the programs it must equal.

    python scripts/goldens/data.py

Writes into tests/goldens/data/: a tiny byte-level BPE tokeniser (`tokenizer/`), what TRL's trainers make of rows in each
format (`tokenize.json`), and what transformers makes of chat templates (`templates.json`), and the same rows as Parquet in several compressions. Needs trl, transformers,
torch, datasets; the versions are recorded in the files. Takes under a minute on a CPU.
"""

import json
import tempfile
from pathlib import Path
from types import SimpleNamespace

import datasets
import pyarrow
import pyarrow.parquet
import tokenizers
import torch
import transformers
import trl
from datasets import Dataset
from jinja2 import TemplateError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer, GRPOTrainer, SFTConfig, SFTTrainer
from trl.data_utils import extract_prompt

OUT = Path(__file__).resolve().parents[2] / "tests" / "goldens" / "data"
VERSIONS = {
    module.__name__: module.__version__ for module in (trl, transformers, tokenizers, datasets, torch, pyarrow)
}
EOS = "<|endoftext|>"
CORPUS = [
    "The sky is blue and the sea is green. The answer is yes, no, or perhaps.",
    "Question: What color is the sky?\nAnswer: It is blue.\n\nHuman: hello there\n\nAssistant: hello, how are you?",
    "user assistant system prompt completion chosen rejected token tokens training the model on the processor",
    "A small language model is trained on a plain processor; it learns to prefer the better answer.",
]

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# A prompt that ends differently alone than before a completion
THINKING = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if think | default(true) %}hello {% endif %}{% endif %}"
)


def tiny_tokenizer():
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=[EOS, "<|im_start|>", "<|im_end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=EOS, bos_token=EOS, unk_token=EOS)
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(OUT / "tokenizer")
    return AutoTokenizer.from_pretrained(OUT / "tokenizer")


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


LONG = "The sky is blue and the sea is green. " * 3
TEXTS = [{"text": text} for text in ["The sky is blue.", f"Ends itself{EOS}", "héllo wörld 🙂", LONG, f"a{EOS}b "]]
PAIRS = [
    {"prompt": "Question: What color is the sky?\nAnswer:", "completion": " It is blue."},
    {"prompt": "The answer is", "completion": "n't there"},
    {"prompt": "The s", "completion": "ky is blue"},
    {"prompt": "", "completion": "no prompt"},
    {"prompt": "empty completion", "completion": ""},
    {"prompt": LONG, "completion": " cut away"},
    {"prompt": "short", "completion": LONG},
]
CHATS = [
    {"messages": [{"role": "system", "content": "Be brief."}, user("hello"), assistant("hello, how are you?")]},
    {"messages": [user("What color is the sky?"), assistant("It is blue."), user("yes?"), assistant("yes.")]},
]
CHAT_PAIRS = [
    {"prompt": [user("What color is the sky?")], "completion": [assistant("It is blue.")]},
    {"prompt": [user("hello"), assistant("hello"), user("no")], "completion": [assistant("yes")]},
]
FROM_VALUE = [
    {"conversations": [{"from": "human", "value": "hello"}, {"from": "gpt", "value": "hello there"}]},
    {"conversations": [{"from": "human", "value": "yes?"}, {"from": "gpt", "value": "no"}]},
]
IDS = [
    {"input_ids": [5, 6, 7, 8, 9], "completion_mask": [0, 0, 1, 1, 1]},
    {"input_ids": [15, 16, 17], "completion_mask": [0, 1, 0]},
]
LABELS = [
    {"input_ids": [5, 6, 7, 8], "labels": [-100, -100, 7, 8]},
    {"input_ids": [9, 10, 11], "labels": [-100, 10, -100]},
]
PREFERENCES = [
    {"prompt": "What color is the sky?", "chosen": " It is blue.", "rejected": " It is green."},
    {"prompt": "The s", "chosen": "ky is blue", "rejected": "ea is green"},
    {"prompt": "The answer is", "chosen": f" yes{EOS}", "rejected": ""},
    {"prompt": "", "chosen": "yes", "rejected": "no"},
    {"prompt": LONG, "chosen": " yes", "rejected": " no"},
    {"prompt": "short", "chosen": LONG, "rejected": " no"},
]
IMPLICIT = [
    {"chosen": "\n\nHuman: hello\n\nAssistant: hello", "rejected": "\n\nHuman: hello\n\nAssistant: go away"},
    {"chosen": "The sky is blue.", "rejected": "The sky is black."},
    {"chosen": "yes", "rejected": "no"},
    {"chosen": "same", "rejected": "same"},
    {"chosen": "The sky", "rejected": "The sky is blue"},
    {"chosen": "yes ", "rejected": "no"},
]
CHAT_PREFERENCES = [
    {"prompt": [user("hello")], "chosen": [assistant("hello there")], "rejected": [assistant("no")]},
    {
        "prompt": [{"role": "system", "content": "Be brief."}, user("yes?")],
        "chosen": [assistant("yes")],
        "rejected": [assistant("The answer is no, or perhaps yes.")],
    },
]
CHAT_IMPLICIT = [
    {key: row["prompt"] + row[key] for key in ("chosen", "rejected")} for row in CHAT_PREFERENCES
]

SFT = [
    ("text", TEXTS, {}, None),
    ("text, kept start", TEXTS, {"max_length": 9}, None),
    ("text, kept end", TEXTS, {"max_length": 9, "truncation_mode": "keep_end"}, None),
    ("text in another column", [{"story": row["text"]} for row in TEXTS], {"dataset_text_field": "story"}, None),
    ("pairs", PAIRS, {}, None),
    ("pairs, loss everywhere", PAIRS, {"completion_only_loss": False}, None),
    ("pairs, kept start", PAIRS, {"max_length": 12}, None),
    ("pairs, kept end", PAIRS, {"max_length": 12, "truncation_mode": "keep_end"}, None),
    ("chats", CHATS, {}, None),
    ("chats, kept start", CHATS, {"max_length": 14}, None),
    ("chat pairs", CHAT_PAIRS, {}, None),
    ("chat pairs, another template", CHAT_PAIRS, {}, THINKING),
    (
        "chat pairs, template keywords",
        [{**row, "chat_template_kwargs": {"think": think}} for row, think in zip(CHAT_PAIRS, (True, False))],
        {},
        THINKING,
    ),
    ("from and value", FROM_VALUE, {}, None),
    ("ids with a mask", IDS, {"completion_only_loss": True}, None),
    ("ids with a mask that is not used", IDS, {}, None),
    ("ids with labels", LABELS, {}, None),
]
DPO = [
    ("preferences", PREFERENCES, {}, None),
    ("preferences, kept start", PREFERENCES, {"max_length": 14}, None),
    ("preferences, kept end", PREFERENCES, {"max_length": 14, "truncation_mode": "keep_end"}, None),
    ("implicit", IMPLICIT, {}, None),
    ("chat preferences", CHAT_PREFERENCES, {}, None),
    ("chat preferences, another template", CHAT_PREFERENCES, {}, THINKING),
    ("implicit chat preferences", CHAT_IMPLICIT, {}, None),
]
PROMPTS = [
    ("prompts", [{"prompt": row["prompt"], "n": 1} for row in PREFERENCES if row["prompt"]]),
    ("chat prompts", [{"prompt": row["prompt"], "n": 1} for row in CHAT_PREFERENCES]),
]


def model(tokenizer):
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=256, n_embd=8, n_layer=1, n_head=1)
    return GPT2LMHeadModel(config)


def arguments(kind, options):
    folder = tempfile.mkdtemp()
    return kind(folder, use_cpu=True, bf16=False, report_to="none", **options)


def tokenizer_with(template):
    tokenizer = AutoTokenizer.from_pretrained(OUT / "tokenizer")
    if template is not None:
        tokenizer.chat_template = template
    return tokenizer


def sft(name, rows, options, template):
    tokenizer = tokenizer_with(template)
    trainer = SFTTrainer(
        model=model(tokenizer),
        args=arguments(SFTConfig, options),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    examples = []
    for index in range(len(trainer.train_dataset)):
        batch = trainer.data_collator([trainer.train_dataset[index]])
        examples.append({"ids": batch["input_ids"][0].tolist(), "labels": batch["labels"][0].tolist()})
    return {"name": name, "rows": rows, "options": options, "template": template, "examples": examples}


def dpo(name, rows, options, template):
    tokenizer = tokenizer_with(template)
    trainer = DPOTrainer(
        model=model(tokenizer),
        ref_model=model(tokenizer),
        args=arguments(DPOConfig, options),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    examples = []
    for index in range(len(trainer.train_dataset)):
        row = trainer.train_dataset[index]
        batch = trainer.data_collator([row])
        sides = []
        for ids, attention, completion in zip(batch["input_ids"], batch["attention_mask"], batch["completion_mask"]):
            length = int(attention.sum())
            sides.append({"ids": ids[:length].tolist(), "completion": completion[:length].tolist()})
        examples.append({"prompt": row["prompt_ids"], "chosen": sides[0], "rejected": sides[1]})
    return {"name": name, "rows": rows, "options": options, "template": template, "examples": examples}


def prompts(name, rows):
    stub = SimpleNamespace(
        processing_class=tokenizer_with(None),
        _is_vlm=False,
        environment_factories=None,
        tools=None,
        chat_template=None,
        chat_template_kwargs={},
    )
    ids, *_ = GRPOTrainer._tokenize_prompts(stub, [row["prompt"] for row in rows])
    return {"name": name, "rows": rows, "examples": ids}


LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
    "{% set system_message = false %}{% endif %}{% for message in loop_messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    "+ message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
ZEPHYR = """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""
GENERATION = """{% for message in messages %}
    {% if message.role == 'assistant' %}
        {% generation %}
[a] {{ message.content }}
        {%- endgeneration %}

    {% else %}
[{{ message.role }}] {{ message.content }}
    {% endif %}
{% endfor %}
"""
PYTHON = """{%- set ns = namespace(seen=0, last=none) -%}
{%- for message in messages -%}
{%- if message.role == 'system' %}{% continue %}{% endif -%}
{%- set ns.seen = ns.seen + 1 -%}{%- set ns.last = message.content -%}
{{ loop.index0 }}|{{ message | tojson }}|{{ message.content.split(' ')[0].upper() }}|{{ message.get('name') }}|
{%- if ns.seen == 2 %}{% break %}{% endif -%}
{%- endfor -%}
{{ ns.seen }} {{ ns.last is string }} {{ none }} {{ true }} {{ [1, 'a', 2.0, none] }} {{ {'k': "it's"} }}
{{ messages[-1]['content'][::-1] }} {{ messages | length }} {{ messages | map(attribute='role') | join(',') }}
{{ messages[0].content.startswith('B') }} {{ 'x' ~ 1 ~ 'y' }} {{ 7 // 2 }} {{ 7 / 2 }} {{ 2 ** 3 }} {{ -7 % 3 }}
{{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ undefined_name }} {{ 'a' in 'abc' }}
{{ {'b': [1, {'c': 'ü"<>&'}], 'a': 1.5} | tojson(indent=2) }}{{ {} | tojson(indent=2) }}
{{ 'text' if messages[0].content is string else 'other' }} {{ "%s-%d" | format('a', 3) }} {{ '  pad ' | trim }}|
{{ messages[0].items() | list | length }} {{ 'a,b'.replace(',', ';') }} {{ ' x '.lstrip() }}{{ 'x\n'.rstrip() }}
{% for key, value in messages[0].items() %}{{ key }}={{ value }};{% endfor %}
{{ none is iterable }} {{ 'a' is sequence }} {{ {} is sequence }} {{ 1 is iterable }} {{ range(2) is iterable }}
{{ missing is iterable }} {{ missing is sequence }} {{ none is sequence }} {{ [] is sequence }}
{% macro show(text, end='!') %}<{{ text }}{{ end }}>{% endmacro %}{{ show('m') }}{{ show('n', end='?') }}"""
TOOLS = (
    "{% if tools %}{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}{% endif %}"
    "{% for message in messages %}{{ message.role }}:{{ message.content }}\n"
    "{% for call in message.tool_calls or [] %}{{ call.function.name }}({{ call.function.arguments | tojson }})\n"
    "{% endfor %}{% endfor %}{{ documents is none }}"
)
CONVERSATIONS = [
    [user("hello there"), assistant("hello, how are you? "), user(" The sky? ")],
    [{"role": "system", "content": "Be brief."}, user("yes\nno"), assistant("perhaps “so” 🙂"), user("a\\b\t'c'")],
]
TOOL_CALL = [
    user("weather?"),
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": {"name": "look", "arguments": {"z": "Köln", "a": [1, True, None]}}}],
    },
]
TOOL = {"type": "function", "function": {"name": "look", "description": "<looks>", "parameters": {"z": {"type": "string"}}}}


def template_cases():
    tokenizer = AutoTokenizer.from_pretrained(OUT / "tokenizer")
    tokenizer.bos_token, tokenizer.eos_token = "<s>", "</s>"
    named = {
        "chatml": CHATML, "llama2": LLAMA2, "llama3": LLAMA3, "zephyr": ZEPHYR, "generation": GENERATION,
        "python": PYTHON, "tools": TOOLS,
    }  # fmt: skip
    cases = []
    for name, template in named.items():
        for conversation in CONVERSATIONS:
            for mode in ({}, {"add_generation_prompt": True}, {"continue_final_message": True}):
                try:
                    text = tokenizer.apply_chat_template(conversation, chat_template=template, tokenize=False, **mode)
                except (ValueError, TemplateError):  # refused: so must we
                    text = None
                cases.append({"template": name, "messages": conversation, "tools": None, **mode, "text": text})
    text = tokenizer.apply_chat_template(TOOL_CALL, chat_template=TOOLS, tokenize=False, tools=[TOOL])
    cases.append({"template": "tools", "messages": TOOL_CALL, "tools": [TOOL], "text": text})
    tokens = tokenizer.special_tokens_map
    return {"versions": VERSIONS, "special_tokens": tokens, "templates": named, "cases": cases}


def parquet_files():
    """Nested rows with nulls over several row groups, and the rows as JSON lines to compare with"""
    rows = [
        {
            "messages": [user("hello"), assistant("hello, how are you?")] if index % 3 else [],
            "text": None if index == 4 else f"row {index} ü",
            "score": index / 2,
            "label": index % 2 == 0,
            "n": index,
            "extra": {"tags": ["a", "b"][: index % 3], "note": None if index % 2 else "x"},
        }
        for index in range(7)
    ]
    table = Dataset.from_list(rows).data.table
    for compression in ("none", "snappy", "zstd", "gzip"):
        pyarrow.parquet.write_table(
            table, OUT / f"rows.{compression}.parquet", compression=compression, row_group_size=3
        )
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (OUT / "rows.jsonl").write_text(lines, encoding="utf-8")


def write(name, value):
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    (OUT / name).write_text(text + "\n", encoding="utf-8")
    print(name, len(text))


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    tiny_tokenizer()
    parquet_files()
    extracted = [extract_prompt(dict(row)) for row in IMPLICIT]
    write(
        "tokenize.json",
        {
            "versions": VERSIONS,
            "sft": [sft(*case) for case in SFT],
            "dpo": [dpo(*case) for case in DPO],
            "prompts": [prompts(*case) for case in PROMPTS],
            "extracted": [{"row": row, "parts": parts} for row, parts in zip(IMPLICIT, extracted)],
        },
    )
    write("templates.json", template_cases())


if __name__ == "__main__":
    main()
