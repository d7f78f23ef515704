//! TRL's keys that no group declares: which are accepted without effect, which refused, and why.
//!
//! With the groups this covers every field of TRL 1.16's script, model, dataset and trainer arguments, so that a
//! TRL config never meets «unknown key» here.

use super::value::Value;

/// What becomes of a key
#[derive(Debug, Clone, Copy)]
pub enum Disposition {
    /// Accepted whatever its value: it cannot change a result here
    Ignored,
    /// Accepted with values that pass, refused with others
    Only(fn(&Value) -> bool),
    /// Another name of a key of this program
    Renamed {
        /// That key
        to: &'static str,
        /// The values that mean the same under both names
        allowed: fn(&Value) -> bool,
    },
}

/// One of TRL's keys, and what becomes of it
#[derive(Debug, Clone, Copy)]
pub struct TrlKey {
    /// TRL's spelling
    pub name: &'static str,
    /// The commands it belongs to; empty for all
    pub commands: &'static [&'static str],
    /// What becomes of it
    pub disposition: Disposition,
    /// Why
    pub reason: &'static str,
}

/// The keys of TRL that a command meets besides its own
pub fn keys_of(command: &str) -> impl Iterator<Item = &'static TrlKey> {
    // The classical agents' names are Stable-Baselines3's
    let is_trl = !command.starts_with("rl ");
    KEYS.iter().filter(move |key| is_trl && (key.commands.is_empty() || key.commands.contains(&command)))
}

fn off(value: &Value) -> bool {
    value.is_null() || value.as_bool() == Some(false)
}

/// Null, false, or an empty list, map or text
fn empty(value: &Value) -> bool {
    match value {
        Value::List(items) => items.is_empty() || items.iter().all(empty),
        Value::Map(entries) => entries.is_empty(),
        Value::Text(text) => text.is_empty() || text == "{}" || text == "[]" || value.is_null(),
        other => off(other),
    }
}

fn zero(value: &Value) -> bool {
    value.is_null() || number(value) == Some(0.0)
}

fn one(value: &Value) -> bool {
    value.is_null() || number(value) == Some(1.0)
}

fn number(value: &Value) -> Option<f64> {
    value.as_scalar()?.parse().ok()
}

fn float32(value: &Value) -> bool {
    matches!(value.as_scalar(), Some("float32" | "auto"))
}

fn adamw(value: &Value) -> bool {
    value.as_scalar().is_some_and(|name| name.starts_with("adamw_torch") && !name.contains("bit"))
}

fn length(value: &Value) -> bool {
    value.as_scalar() == Some("length")
}

fn eos(value: &Value) -> bool {
    value.is_null() || value.as_scalar() == Some("eos")
}

fn single_device(value: &Value) -> bool {
    value.is_null() || value.as_scalar() == Some("single_gpu")
}

fn ratio(value: &Value) -> bool {
    number(value).is_some_and(|ratio| (0.0..1.0).contains(&ratio))
}

/// Variables of programs that are not part of a run here
fn harmless_environment(value: &Value) -> bool {
    const PREFIXES: [&str; 8] = [
        "ACCELERATE_",
        "CUDA_",
        "NCCL_",
        "PYTORCH_",
        "TORCH_",
        "TOKENIZERS_PARALLELISM",
        "TRANSFORMERS_VERBOSITY",
        "WANDB_",
    ];
    match value {
        Value::Map(entries) => entries.iter().all(|(name, _)| PREFIXES.iter().any(|prefix| name.starts_with(prefix))),
        other => other.is_null(),
    }
}

const fn ignored(name: &'static str, reason: &'static str) -> TrlKey {
    TrlKey { name, commands: &[], disposition: Disposition::Ignored, reason }
}

const fn only(name: &'static str, allowed: fn(&Value) -> bool, reason: &'static str) -> TrlKey {
    TrlKey { name, commands: &[], disposition: Disposition::Only(allowed), reason }
}

/// Whatever its value, the same under another name
const fn renamed(name: &'static str, to: &'static str) -> TrlKey {
    TrlKey { name, commands: &[], disposition: Disposition::Renamed { to, allowed: |_| true }, reason: "" }
}

impl TrlKey {
    const fn of(self, commands: &'static [&'static str]) -> Self {
        Self { commands, ..self }
    }
}

const PROCESSOR: &str = "runs use the processor";
const ONE_DEVICE: &str = "there is one device";
const SAME_RESULT: &str = "it saves memory or time, with the same result";
const LOADER: &str = "rows are read in the run's own threads";
const TERMINAL: &str = "`quiet` decides what the terminal shows";
const NO_UPLOAD: &str = "nothing is pushed to the Hub";
const NO_TRACKER: &str = "metrics go to `metrics.jsonl` and TensorBoard files";
const NO_ADAPTER: &str = "all weights are trained";
const NO_QUANTISATION: &str = "weights are held in float32";
const NO_BEST: &str = "the final model is the last one";
const EVALUATION: &str = "evaluation computes the trainer's own metrics";
const FULL_PRECISION: &str = "the only precision besides float32 is `bf16`";
const REFERENCE_FREE: &[&str] = &["orpo", "cpo"];
const FINE_TUNING: &[&str] = &["sft"];
const GROUP: &[&str] = &["grpo", "rloo"];
const ONLINE_PPO: &[&str] = &["ppo"];
const NO_VLLM: &str = "completions are sampled in this process";

/// The whole table
pub const KEYS: &[TrlKey] = &[
    // Script, dataset and launcher
    only("env", harmless_environment, "variables are set in the shell that starts the run"),
    only("streaming", off, "rows are read in full before the first step"),
    only("dataset_streaming", off, "rows are read in full before the first step"),
    only("accelerate_config", single_device, ONE_DEVICE),
    only("num_processes", one, ONE_DEVICE),
    ignored("ignore_bias_buffers", ONE_DEVICE),
    ignored("dataset_num_proc", "the number of `threads` is the run's"),
    only("dataset_kwargs", empty, "rows are always prepared by the trainer").of(FINE_TUNING),
    // Model
    only("dtype", float32, NO_QUANTISATION),
    only("torch_dtype", float32, NO_QUANTISATION),
    ignored("attn_implementation", "there is one attention"),
    ignored("trust_remote_code", "no code is loaded from the Hub"),
    only("model_init_kwargs", empty, "models are built from their config.json alone"),
    only("router_aux_loss_coef", empty, "no model here is a mixture of experts"),
    only("use_peft", off, NO_ADAPTER),
    ignored("lora_r", NO_ADAPTER),
    ignored("lora_alpha", NO_ADAPTER),
    ignored("lora_dropout", NO_ADAPTER),
    ignored("lora_target_modules", NO_ADAPTER),
    ignored("lora_target_parameters", NO_ADAPTER),
    ignored("lora_modules_to_save", NO_ADAPTER),
    ignored("lora_task_type", NO_ADAPTER),
    ignored("use_rslora", NO_ADAPTER),
    ignored("use_dora", NO_ADAPTER),
    only("load_in_8bit", off, NO_QUANTISATION),
    only("load_in_4bit", off, NO_QUANTISATION),
    ignored("bnb_4bit_quant_type", NO_QUANTISATION),
    ignored("use_bnb_nested_quant", NO_QUANTISATION),
    ignored("bnb_4bit_quant_storage", NO_QUANTISATION),
    // Batches
    only("dataloader_drop_last", off, "the last batch of an epoch is trained on, however small"),
    ignored("dataloader_num_workers", LOADER),
    ignored("dataloader_pin_memory", LOADER),
    ignored("dataloader_persistent_workers", LOADER),
    ignored("dataloader_prefetch_factor", LOADER),
    ignored("dataloader_multiprocessing_context", LOADER),
    ignored("dataloader_in_order", LOADER),
    ignored("remove_unused_columns", "columns that no trainer reads are left alone"),
    only("label_names", empty, "labels are made by the trainer"),
    only("length_column_name", length, "lengths are counted in tokens"),
    only("group_by_length", off, "it is now `train_sampling_strategy: group_by_length`"),
    only("data_seed", empty, "`seed` draws the rows too"),
    only("auto_find_batch_size", off, "the batch size is the one asked for"),
    ignored("pad_to_multiple_of", "padding changes no result"),
    ignored("padding_free", SAME_RESULT),
    only("max_prompt_length", empty, "TRL has dropped it; `max_length` holds for prompt and completion"),
    only("max_seq_length", empty, "it is now `max_length`"),
    // Optimiser and loss
    only("optim", adamw, "the optimiser is AdamW"),
    only("optim_args", empty, "the optimiser is AdamW, with `adam_beta1`, `adam_beta2` and `adam_epsilon`"),
    only("optim_target_modules", empty, NO_ADAPTER),
    TrlKey {
        name: "warmup_ratio",
        commands: &[],
        disposition: Disposition::Renamed { to: "warmup_steps", allowed: ratio },
        reason: "must be at least 0 and below 1",
    },
    only("label_smoothing_factor", zero, "targets are not smoothed"),
    only("neftune_noise_alpha", zero, "embeddings get no noise"),
    ignored("average_tokens_across_devices", ONE_DEVICE),
    // Precision, memory, compilation
    only("fp16", off, FULL_PRECISION),
    only("bf16_full_eval", off, FULL_PRECISION),
    only("fp16_full_eval", off, FULL_PRECISION),
    ignored("tf32", PROCESSOR),
    ignored("gradient_checkpointing_kwargs", SAME_RESULT),
    ignored("activation_checkpointing", SAME_RESULT),
    ignored("activation_checkpointing_kwargs", SAME_RESULT),
    ignored("activation_offloading", SAME_RESULT),
    ignored("torch_empty_cache_steps", SAME_RESULT),
    ignored("torch_compile", SAME_RESULT),
    ignored("torch_compile_backend", SAME_RESULT),
    ignored("torch_compile_mode", SAME_RESULT),
    ignored("use_liger_kernel", SAME_RESULT),
    ignored("liger_kernel_config", SAME_RESULT),
    ignored("use_cache", SAME_RESULT),
    // Devices
    ignored("use_cpu", PROCESSOR),
    ignored("no_cuda", PROCESSOR),
    ignored("full_determinism", "the same seed always gives the same bytes"),
    ignored("local_rank", ONE_DEVICE),
    only("accelerator_config", empty, ONE_DEVICE),
    only("parallelism_config", empty, ONE_DEVICE),
    ignored("ddp_find_unused_parameters", ONE_DEVICE),
    ignored("ddp_bucket_cap_mb", ONE_DEVICE),
    ignored("ddp_broadcast_buffers", ONE_DEVICE),
    ignored("ddp_static_graph", ONE_DEVICE),
    ignored("ddp_backend", ONE_DEVICE),
    ignored("ddp_timeout", ONE_DEVICE),
    only("fsdp", empty, ONE_DEVICE),
    only("fsdp_config", empty, ONE_DEVICE),
    only("deepspeed", empty, ONE_DEVICE),
    // Logging
    ignored("disable_tqdm", TERMINAL),
    ignored("log_level", TERMINAL),
    ignored("log_level_replica", TERMINAL),
    ignored("log_on_each_node", ONE_DEVICE),
    ignored("logging_dir", "TensorBoard files go to `runs/` in the run folder"),
    ignored("logging_nan_inf_filter", "a loss that is no number ends the run"),
    only("include_num_input_tokens_seen", off, "the trainer's own `num_tokens` counts the tokens"),
    only("include_tokens_per_second", off, "every row has `tokens_per_second`"),
    ignored("run_name", NO_TRACKER),
    ignored("project", NO_TRACKER),
    ignored("trackio_space_id", NO_TRACKER),
    ignored("trackio_bucket_id", NO_TRACKER),
    ignored("trackio_static_space_id", NO_TRACKER),
    ignored("debug", PROCESSOR),
    ignored("skip_memory_metrics", "`peak_rss_mb` is always measured"),
    // Evaluation
    ignored("do_train", "the command says what is done"),
    ignored("do_eval", "`eval_strategy` says when to evaluate"),
    ignored("do_predict", "the command says what is done"),
    only("eval_delay", zero, "evaluation starts with the run"),
    ignored("prediction_loss_only", EVALUATION),
    ignored("eval_do_concat_batches", EVALUATION),
    ignored("eval_use_gather_object", ONE_DEVICE),
    ignored("eval_accumulation_steps", SAME_RESULT),
    ignored("include_for_metrics", EVALUATION),
    ignored("batch_eval_metrics", EVALUATION),
    // Checkpoints and the Hub
    only("save_only_model", off, "a checkpoint always holds what an exact resume needs"),
    ignored("save_on_each_node", ONE_DEVICE),
    ignored("save_safetensors", "weights are always written as safetensors"),
    ignored("enable_jit_checkpoint", "a signal always writes a checkpoint"),
    only("load_best_model_at_end", off, NO_BEST),
    ignored("metric_for_best_model", NO_BEST),
    ignored("greater_is_better", NO_BEST),
    only("ignore_data_skip", off, "a resumed run goes on at the row where it stopped"),
    ignored("restore_callback_states_from_checkpoint", "a checkpoint always holds what an exact resume needs"),
    only("push_to_hub", off, NO_UPLOAD),
    ignored("hub_token", NO_UPLOAD),
    ignored("hub_private_repo", NO_UPLOAD),
    ignored("hub_model_id", NO_UPLOAD),
    ignored("hub_strategy", NO_UPLOAD),
    ignored("hub_always_push", NO_UPLOAD),
    ignored("hub_revision", NO_UPLOAD),
    // Online trainers
    ignored("cast_lm_head_to_fp32", "log-probabilities are computed in float32").of(GROUP),
    ignored("ds3_gather_for_generation", ONE_DEVICE).of(GROUP),
    only("generation_kwargs", empty, "sampling has keys of its own, `temperature`, `top_p` and so on").of(GROUP),
    only("chat_template_kwargs", empty, "a row's own `chat_template_kwargs` are used").of(GROUP),
    ignored("cache_implementation", "there is one key-value cache").of(GROUP),
    only("use_vllm", off, NO_VLLM).of(GROUP),
    ignored("vllm_mode", NO_VLLM).of(GROUP),
    ignored("vllm_model_impl", NO_VLLM).of(GROUP),
    ignored("vllm_enable_sleep_mode", NO_VLLM).of(GROUP),
    only("vllm_structured_outputs_regex", empty, NO_VLLM).of(GROUP),
    ignored("vllm_server_base_url", NO_VLLM).of(GROUP),
    ignored("vllm_server_host", NO_VLLM).of(GROUP),
    ignored("vllm_server_port", NO_VLLM).of(GROUP),
    ignored("vllm_server_timeout", NO_VLLM).of(GROUP),
    ignored("vllm_group_port", NO_VLLM).of(GROUP),
    ignored("vllm_gpu_memory_utilization", NO_VLLM).of(GROUP),
    ignored("vllm_max_model_length", NO_VLLM).of(GROUP),
    ignored("vllm_tensor_parallel_size", NO_VLLM).of(GROUP),
    ignored("vllm_importance_sampling_correction", NO_VLLM).of(GROUP),
    ignored("vllm_importance_sampling_mode", NO_VLLM).of(GROUP),
    ignored("vllm_importance_sampling_clip_max", NO_VLLM).of(GROUP),
    ignored("vllm_importance_sampling_clip_min", NO_VLLM).of(GROUP),
    ignored("vllm_importance_sampling_cap", NO_VLLM).of(GROUP),
    only("max_tool_calling_iterations", empty, "no tools are called").of(GROUP),
    ignored("log_multimodal", "there are no images").of(GROUP),
    ignored("num_completions_to_print", TERMINAL).of(GROUP),
    ignored("log_unique_prompts", TERMINAL).of(GROUP),
    only("log_completions_hub_repo", empty, NO_UPLOAD).of(GROUP),
    ignored("use_transformers_continuous_batching", SAME_RESULT).of(GROUP),
    ignored("transformers_continuous_batching_config", SAME_RESULT).of(GROUP),
    ignored("use_transformers_paged", SAME_RESULT).of(GROUP),
    // PPO's own names of common keys
    renamed("response_length", "max_completion_length").of(ONLINE_PPO),
    renamed("reward_model_path", "reward_model_name_or_path").of(ONLINE_PPO),
    renamed("sft_model_path", "model_name_or_path").of(ONLINE_PPO),
    only("stop_token", eos, "`stop_tokens` names further ones").of(ONLINE_PPO),
    renamed("stop_token_id", "stop_tokens").of(ONLINE_PPO),
    ignored("local_rollout_forward_batch_size", SAME_RESULT).of(ONLINE_PPO),
    ignored("num_sample_generations", "`log_completions` writes the completions of every logged step").of(ONLINE_PPO),
    ignored("exp_name", NO_TRACKER).of(ONLINE_PPO),
    // Preference losses
    ignored("max_completion_length", "`max_length` holds for prompt and completion").of(REFERENCE_FREE),
    ignored("padding_value", "batches are not padded").of(REFERENCE_FREE),
    only("generate_during_eval", off, EVALUATION).of(REFERENCE_FREE),
    only("is_encoder_decoder", off, "models are decoders").of(REFERENCE_FREE),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{
        CpoKeys, DpoKeys, GrpoKeys, Key, KtoKeys, OnlineKeys, OrpoKeys, ReferenceKeys, RewardKeys, RlooKeys, SftKeys,
        SyncKeys, TrainKeys,
    };

    /// The fields of TRL 1.16's ScriptArguments, DatasetMixtureConfig, ModelConfig and base config
    const COMMON: &str = "
        dataset_name dataset_config dataset_train_split dataset_test_split dataset_streaming ignore_bias_buffers
        datasets streaming test_split_size model_name_or_path model_revision dtype attn_implementation use_peft lora_r
        lora_alpha lora_dropout lora_target_modules lora_target_parameters lora_modules_to_save lora_task_type
        use_rslora use_dora load_in_8bit load_in_4bit bnb_4bit_quant_type use_bnb_nested_quant bnb_4bit_quant_storage
        output_dir per_device_train_batch_size num_train_epochs max_steps learning_rate lr_scheduler_type
        lr_scheduler_kwargs warmup_steps optim optim_args weight_decay adam_beta1 adam_beta2 adam_epsilon
        optim_target_modules gradient_accumulation_steps average_tokens_across_devices max_grad_norm
        label_smoothing_factor bf16 fp16 bf16_full_eval fp16_full_eval tf32 activation_checkpointing
        activation_checkpointing_kwargs gradient_checkpointing gradient_checkpointing_kwargs torch_compile
        torch_compile_backend torch_compile_mode use_liger_kernel liger_kernel_config use_cache neftune_noise_alpha
        torch_empty_cache_steps auto_find_batch_size logging_strategy logging_steps logging_first_step
        log_on_each_node logging_nan_inf_filter include_num_input_tokens_seen log_level log_level_replica disable_tqdm
        report_to run_name project trackio_space_id trackio_bucket_id trackio_static_space_id eval_strategy eval_steps
        eval_delay per_device_eval_batch_size prediction_loss_only eval_on_start eval_do_concat_batches
        eval_use_gather_object eval_accumulation_steps include_for_metrics batch_eval_metrics save_only_model
        save_strategy save_steps save_on_each_node save_total_limit enable_jit_checkpoint push_to_hub hub_token
        hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision load_best_model_at_end
        metric_for_best_model greater_is_better ignore_data_skip restore_callback_states_from_checkpoint
        full_determinism seed data_seed use_cpu accelerator_config parallelism_config dataloader_drop_last
        dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers dataloader_prefetch_factor
        dataloader_multiprocessing_context dataloader_in_order remove_unused_columns label_names
        train_sampling_strategy length_column_name ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers
        ddp_static_graph ddp_backend ddp_timeout fsdp fsdp_config deepspeed debug skip_memory_metrics do_train do_eval
        do_predict resume_from_checkpoint local_rank";
    const SFT: &str = "
        model_init_kwargs trust_remote_code router_aux_loss_coef chat_template_path dataset_text_field dataset_kwargs
        dataset_num_proc eos_token max_length truncation_mode shuffle_dataset packing packing_strategy padding_free
        pad_to_multiple_of eval_packing completion_only_loss assistant_only_loss loss_type activation_offloading
        pad_token";
    const DPO: &str = "
        model_init_kwargs trust_remote_code router_aux_loss_coef disable_dropout dataset_num_proc max_length
        truncation_mode padding_free pad_to_multiple_of precompute_ref_log_probs precompute_ref_batch_size loss_type
        loss_weights ld_alpha f_divergence_type f_alpha_divergence_coef label_smoothing beta use_weighting
        discopop_tau activation_offloading sync_ref_model ref_model_mixup_alpha ref_model_sync_steps pad_token";
    const KTO: &str = "
        model_init_kwargs trust_remote_code router_aux_loss_coef disable_dropout dataset_num_proc max_length
        pad_to_multiple_of precompute_ref_log_probs precompute_ref_batch_size loss_type beta desirable_weight
        undesirable_weight activation_offloading sync_ref_model ref_model_mixup_alpha ref_model_sync_steps";
    const ORPO: &str = "
        max_length max_completion_length beta disable_dropout padding_value generate_during_eval is_encoder_decoder
        model_init_kwargs trust_remote_code dataset_num_proc";
    const CPO: &str = "
        max_length max_completion_length beta label_smoothing loss_type disable_dropout cpo_alpha simpo_gamma alpha
        generate_during_eval is_encoder_decoder model_init_kwargs trust_remote_code dataset_num_proc";

    const GRPO: &str = "
        reward_funcs reward_model_name_or_path model_init_kwargs trust_remote_code router_aux_loss_coef
        disable_dropout cast_lm_head_to_fp32 num_generations num_generations_eval max_completion_length
        ds3_gather_for_generation shuffle_dataset pad_to_multiple_of generation_batch_size steps_per_generation
        temperature top_p top_k min_p generation_kwargs chat_template_kwargs repetition_penalty cache_implementation
        use_vllm vllm_mode vllm_model_impl vllm_enable_sleep_mode vllm_structured_outputs_regex vllm_server_base_url
        vllm_server_host vllm_server_port vllm_server_timeout vllm_group_port vllm_gpu_memory_utilization
        vllm_max_model_length vllm_tensor_parallel_size beta num_iterations epsilon delta epsilon_high
        sapo_temperature_neg sapo_temperature_pos vespo_k_pos vespo_lambda_pos vespo_k_neg vespo_lambda_neg
        importance_sampling_level reward_weights multi_objective_aggregation scale_rewards loss_type
        mask_truncated_completions sync_ref_model ref_model_mixup_alpha ref_model_sync_steps top_entropy_quantile
        entropy_coef use_adaptive_entropy entropy_coef_min entropy_coef_max entropy_coef_delta entropy_target
        max_tool_calling_iterations vllm_importance_sampling_correction vllm_importance_sampling_mode
        vllm_importance_sampling_clip_max vllm_importance_sampling_clip_min off_policy_mask_threshold
        use_bias_correction_kl log_completions log_multimodal num_completions_to_print log_unique_prompts
        log_completions_hub_repo use_transformers_continuous_batching transformers_continuous_batching_config
        use_transformers_paged vllm_importance_sampling_cap";
    const RLOO: &str = "
        reward_funcs reward_model_name_or_path model_init_kwargs trust_remote_code router_aux_loss_coef
        disable_dropout num_generations num_generations_eval max_completion_length ds3_gather_for_generation
        shuffle_dataset pad_to_multiple_of generation_batch_size steps_per_generation temperature top_p top_k min_p
        generation_kwargs chat_template_kwargs repetition_penalty cache_implementation use_vllm vllm_mode
        vllm_model_impl vllm_enable_sleep_mode vllm_structured_outputs_regex vllm_server_base_url vllm_server_host
        vllm_server_port vllm_server_timeout vllm_group_port vllm_gpu_memory_utilization vllm_max_model_length
        vllm_tensor_parallel_size beta num_iterations epsilon epsilon_high reward_weights normalize_advantages
        reward_clip_range mask_truncated_completions sync_ref_model ref_model_mixup_alpha ref_model_sync_steps
        log_completions log_multimodal num_completions_to_print log_unique_prompts
        use_transformers_continuous_batching transformers_continuous_batching_config use_transformers_paged";

    const REWARD: &str = "
        model_init_kwargs trust_remote_code chat_template_path disable_dropout dataset_num_proc eos_token max_length
        pad_to_multiple_of center_rewards_coefficient activation_offloading pad_token";

    #[test]
    fn every_field_of_trl_is_known() {
        let commands: [(&str, &[&[Key]], &str); 8] = [
            ("sft", &[SftKeys::KEYS], SFT),
            ("reward", &[RewardKeys::KEYS], REWARD),
            ("dpo", &[DpoKeys::KEYS, ReferenceKeys::KEYS, SyncKeys::KEYS], DPO),
            ("kto", &[KtoKeys::KEYS, ReferenceKeys::KEYS, SyncKeys::KEYS], KTO),
            ("orpo", &[OrpoKeys::KEYS], ORPO),
            ("cpo", &[CpoKeys::KEYS], CPO),
            ("grpo", &[OnlineKeys::KEYS, GrpoKeys::KEYS, SyncKeys::KEYS], GRPO),
            ("rloo", &[OnlineKeys::KEYS, RlooKeys::KEYS, SyncKeys::KEYS], RLOO),
        ];
        for (command, own, fields) in commands {
            for field in COMMON.split_whitespace().chain(fields.split_whitespace()) {
                let ours = TrainKeys::KEYS.iter().chain(own.iter().copied().flatten()).any(|key| key.name == field);
                let theirs = keys_of(command).any(|key| key.name == field);
                assert!(ours != theirs, "`{field}` of `{command}` stands in {} places", usize::from(ours) * 2);
            }
        }
    }

    #[test]
    fn values_that_would_change_a_result_are_told_apart() {
        let only = |name: &str, value: &str| {
            let key = KEYS.iter().find(|key| key.name == name).unwrap();
            let Disposition::Only(allowed) = key.disposition else { panic!("`{name}` takes anything") };
            allowed(&Value::text(value))
        };
        for (name, harmless, harmful) in [
            ("optim", "adamw_torch_fused", "adamw_torch_8bit"),
            ("optim", "adamw_torch", "sgd"),
            ("dtype", "float32", "bfloat16"),
            ("dataloader_drop_last", "false", "true"),
            ("push_to_hub", "False", "True"),
            ("label_smoothing_factor", "0.0", "0.1"),
            ("neftune_noise_alpha", "None", "5"),
            ("num_processes", "1", "2"),
            ("fsdp", "", "full_shard"),
        ] {
            assert!(only(name, harmless), "{name}: {harmless}");
            assert!(!only(name, harmful), "{name}: {harmful}");
        }
    }
}
