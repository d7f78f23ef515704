#!/usr/bin/env bash
# run.sh DATA OUT [SFT_STEPS] [DPO_STEPS]: a GPT-2 of distilgpt2's shape from random weights, SFT then DPO on real preferences.
#
# DATA holds hh_rlhf_test/ and gpt2_tokenizer/. Needs python3 for the split and about 3 GB of memory.
# Held-out accuracy and loss curves: OUT/sft/metrics.jsonl, OUT/dpo/metrics.jsonl (rows with eval_), OUT/*/summary.json.
set -euo pipefail
data=$1 out=$2 sft_steps=${3:-150} dpo_steps=${4:-80}
here=$(cd "$(dirname "$0")" && pwd)
collimate=${COLLIMATE:-"$here/../../target/release/collimate"}

mkdir -p "$out/model"
python3 "$here/split.py" "$data" "$out"
cp "$data/gpt2_tokenizer/tokenizer.json" "$out/model/"
echo '{"model_type":"gpt2","n_layer":6,"resid_pdrop":0.0,"embd_pdrop":0.0,"attn_pdrop":0.0}' > "$out/model/config.json"
echo '{"tokenizer_class":"GPT2TokenizerFast","eos_token":"<|endoftext|>","bos_token":"<|endoftext|>","model_max_length":1024}' \
  > "$out/model/tokenizer_config.json"

"$collimate" sft --model_name_or_path "$out/model" --from_scratch --dataset_name "$out/texts" --output_dir "$out/sft" \
  --max_length 256 --max_steps "$sft_steps" --learning_rate 5e-4 --warmup_steps 10 --lr_scheduler_type cosine \
  --completion_only_loss false --logging_steps 5 --eval_strategy steps --eval_steps 50 --save_strategy no \
  --overwrite_output_dir
"$collimate" dpo --model_name_or_path "$out/sft" --dataset_name "$out/pairs" --output_dir "$out/dpo" \
  --max_length 256 --max_steps "$dpo_steps" --per_device_train_batch_size 4 --learning_rate 2e-5 --warmup_steps 5 \
  --logging_steps 5 --eval_strategy steps --eval_steps 40 --save_strategy no --overwrite_output_dir
