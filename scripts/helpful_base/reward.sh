#!/usr/bin/env bash
# reward.sh DATA OUT [EPOCHS]: reward models of a small GPT-2 from random weights, on 250, 500, 1000 and all of the real pairs.
#
# DATA holds hh_rlhf_test/ and gpt2_tokenizer/. Needs python3 for the split and about 2 GB of memory; some 15 minutes on 2 cores.
# The model reads the chosen answers first (SFT). Prints one line a size: what `collimate eval` says of the held-out questions.
# Then: python3 scripts/helpful_base/plot.py OUT/curve.jsonl docs/images/reward_learning_curve.svg   (needs matplotlib)
set -euo pipefail
data=$1 out=$2 epochs=${3:-1}
here=$(cd "$(dirname "$0")" && pwd)
collimate=${COLLIMATE:-"$here/../../target/release/collimate"}

mkdir -p "$out/model"
python3 "$here/split.py" "$data" "$out"
cp "$data/gpt2_tokenizer/tokenizer.json" "$out/model/"
echo '{"model_type":"gpt2","n_layer":4,"n_head":4,"n_embd":256,"n_positions":512}' > "$out/model/config.json"
echo '{"tokenizer_class":"GPT2TokenizerFast","eos_token":"<|endoftext|>","bos_token":"<|endoftext|>","model_max_length":512}' \
  > "$out/model/tokenizer_config.json"

"$collimate" sft --model_name_or_path "$out/model" --from_scratch --dataset_name "$out/texts" --output_dir "$out/sft" \
  --max_length 512 --num_train_epochs 1 --per_device_train_batch_size 8 --learning_rate 1e-3 --warmup_steps 0.1 \
  --lr_scheduler_type cosine --completion_only_loss false --logging_steps 20 --eval_strategy epoch --save_strategy no --overwrite_output_dir
: > "$out/curve.jsonl"
for size in 250 500 1000 ''; do
  "$collimate" reward --model_name_or_path "$out/sft" --dataset_name "$out/pairs" --dataset_train_split "train[:$size]" \
    --output_dir "$out/reward-${size:-all}" --max_length 512 --num_train_epochs "$epochs" --per_device_train_batch_size 8 \
    --learning_rate 1e-4 --warmup_steps 0.1 --disable_dropout false --save_strategy no --overwrite_output_dir
  "$collimate" eval --model "$out/reward-${size:-all}" --dataset_name "$out/pairs" --json | tee -a "$out/curve.jsonl"
done
