"""What one option of another tool is here, and the lines that several tools share."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Counterpart:
    """The fields that take an option's value as it is, and what else a person should know about it.

    `derived` names a field that several options give together. `training` is the field's name in the sections `sft` and
    `reward`, where it differs. An option with neither field has no counterpart, and `note` says why.
    """

    fields: tuple[str, ...] = ()
    note: str = ""
    derived: str = ""
    training: str = ""

    def hint(self, stage: str) -> str:
        """Return the line for a person who wrote the option as a key inside section `stage`."""
        if stage in ("sft", "reward") and self.training:
            return f"here it is {stage}.{self.training}"
        names = " and ".join(self.fields) or self.derived
        if not names:
            return f"there is no such field: {self.note}"
        return f"here it is {names}" + (f" ({self.note})" if self.note else "")


def to(*fields: str, note: str = "", training: str = "") -> Counterpart:
    """Return an option whose value these fields take as it is."""
    return Counterpart(fields, note, training=training)


def from_several(field: str, note: str, training: str = "") -> Counterpart:
    """Return an option that gives a field together with others, or in another form."""
    return Counterpart((), note, field, training)


def none(note: str) -> Counterpart:
    """Return an option that has no counterpart, with the reason."""
    return Counterpart((), note)


BATCH = from_several("ppo.prompts_per_step", "prompts of one step over all devices", "batch_size")
STEPS = from_several("ppo.steps", "steps, not episodes: total episodes / sequences of a step")
MINIBATCHES = from_several("ppo.optimizer.minibatches", "their number: sequences of a step / size of a minibatch")
WARMUP = from_several("ppo.optimizer.warmup_steps", "steps, not a share", "warmup_ratio")
MODEL = to("model.uri", note="a folder, models://NAME, or hf://ORG/NAME")
REWARD_MODEL = to("reward.model")
DTYPE = from_several("model.dtype", "float32 or bfloat16")
KL = to("ppo.kl.coef")
CLIP = to("ppo.clip.low", "ppo.clip.high")
POLICY_LR = to("ppo.optimizer.policy_lr", note="the value model has ppo.optimizer.value_lr", training="learning_rate")
MICROBATCH = none("microbatches are counted in tokens, microbatch_tokens, and do not change the result")
OPERATOR = none("memory and parallelism are the operator's, in the configuration of the services")
LOGGING = none("this version sends metrics nowhere by itself; `quatrain job metrics JOB -o json` has them")
LORA = none("this version trains all weights; merge an adapter into its base first")
HUB = none("nothing is uploaded; `quatrain checkpoint download JOB` gives a folder that the hub's own tool can push")
OUTPUT = none("results are in the object store; `quatrain checkpoint download JOB --to DIR` fetches them")
VALUE_LOSS = none("policy and value model have optimizers of their own; weigh the value with ppo.optimizer.value_lr")
GROUPS = none("the only estimator is gae, with a value model")
REWARD_SCALING = none("rewards are not normalised by the batch; scale with reward.scale, bound with reward.clip")
KL_LOSS = none("the KL penalty is in the reward: ppo.kl.coef; placement: loss has other units, see docs/spec.md")
SAMPLING = none("it changes the distribution that completions are sampled from, which PPO's ratios rely on")
STOP = none("a completion ends at the end-of-sequence token or at ppo.generation.max_new_tokens and nowhere else")
TEMPLATE = none("the model's own chat template is applied wherever a prompt is a list of turns")
EXAMPLES = none("every sample is kept; `quatrain job rollouts JOB` shows them")
LORA_KEYS = (
    "use_peft",
    "lora",
    "peft_config",
    "lora_r",
    "lora_rank",
    "lora_alpha",
    "lora_dropout",
    "lora_task_type",
    "lora_target_modules",
    "target_modules",
    "load_in_4bit",
    "load_in_8bit",
    "model_adapter_name",
)
OPERATOR_KEYS = (
    "gradient_checkpointing",
    "gradient_checkpointing_kwargs",
    "deepspeed",
    "fsdp",
    "fsdp_config",
    "tf32",
    "ds3_gather_for_generation",
    "use_vllm",
    "vllm_mode",
    "vllm_gpu_memory_utilization",
    "world_size",
    "vllm_tensor_parallel_size",
    "vllm_num_engines",
    "vllm_sync_backend",
    "vllm_enable_sleep",
    "zero_stage",
    "adam_offload",
    "flash_attn",
    "attn_implementation",
    "packing_samples",
    "device_map",
    "colocate_all_models",
    "colocate_critic_reward",
    "colocate_actor_ref",
    "ref_reward_offload",
    "actor_num_nodes",
    "critic_num_nodes",
    "ref_num_nodes",
    "reward_num_nodes",
    "enforce_eager",
    "actor_num_gpus_per_node",
    "critic_num_gpus_per_node",
    "ref_num_gpus_per_node",
    "use_liger_kernel",
    "reward_num_gpus_per_node",
    "deepspeed_enable_sleep",
    "enable_prefix_caching",
    "ring_attn_size",
)
LOGGING_KEYS = (
    "report_to",
    "logging",
    "logging_steps",
    "logging_dir",
    "log_with",
    "use_wandb",
    "wandb_project",
    "wandb_run_name",
    "wandb_org",
    "wandb_group",
    "use_tensorboard",
    "tracker_project_name",
    "wandb",
    "log_completions",
    "logging_first_step",
    "logging_strategy",
    "tracker_kwargs",
)
SAMPLING_KEYS = (
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "do_sample",
)

ANY: dict[str, Counterpart] = {
    **dict.fromkeys(LORA_KEYS, LORA),
    **dict.fromkeys(OPERATOR_KEYS, OPERATOR),
    **dict.fromkeys(LOGGING_KEYS, LOGGING),
    **dict.fromkeys(SAMPLING_KEYS, SAMPLING),
    **dict.fromkeys(("push_to_hub", "hub_model_id", "hub_token", "hub_strategy"), HUB),
    **dict.fromkeys(("bf16", "fp16", "torch_dtype", "precision"), DTYPE),
    "seed": to("seed"),
    "gamma": to("ppo.advantage.gamma"),
    "temperature": to("ppo.generation.temperature"),
}
