#!/bin/sh
# PPO on reviews against a learned reward model, with and without the KL, and without it against one that learned from 100 pairs;
# the gold score is the lexicon, which weighs nothing.
#   scripts/online/reviews.sh COLLIMATE OUT        (from the repository's root; some minutes on 2 cores)
set -eu
collimate=$1 out=$2
$collimate sft --config configs/sft.yaml --output_dir "$out/sft" --overwrite_output_dir --quiet
$collimate reward --config configs/reward.yaml --output_dir "$out/reward" --overwrite_output_dir --quiet
$collimate reward --config configs/reward.yaml --dataset_train_split "train[:100]" --output_dir "$out/weak" --overwrite_output_dir --quiet
for arm in "kl reward --kl_coef 0.1 --kl_target 6 --kl_horizon 500" "free reward --kl_coef 0" "weak weak --kl_coef 0"; do
    set -- $arm
    name=$1 judge=$2
    shift 2
    $collimate ppo --config configs/ppo.yaml --model_name_or_path "$out/sft" --output_dir "$out/ppo-$name" --overwrite_output_dir \
        --reward_funcs "$out/$judge" lexicon:data/reviews/lexicon.json --reward_weights 1 0 --max_steps 120 --logging_steps 5 \
        --log_completions false --quiet "$@"
done
