"""The names of the metrics that every PPO step has, as the design lists them."""

EVERY_STEP = frozenset(
    f"{group}/{name}"
    for group, names in {
        "reward": "score_mean score_std kl_penalty total length_corr length_explained refused skipped",
        "kl": "ref_seq ref_seq_se ref_token ref_k3_token coef",
        "policy": "entropy clip_fraction clip_fraction_low clip_fraction_high clip_fraction_first ratio_dev_first "
        "ratio_mean ratio_min ratio_max approx_kl loss",
        "loss": "total",
        "value": "loss clip_fraction explained_variance",
        "optim": "policy_lr value_lr policy_grad_norm value_grad_norm skipped",
        "completions": "length_mean length_min length_max length_p95 eos_rate distinct_2 duplicate_rate",
        "sampler": "mismatch_mean mismatch_max ess staleness",
        "time": "generate score reference collect seal train publish checkpoint step",
        "throughput": "completion_tokens_per_s train_tokens_per_s",
    }.items()
    for name in names.split()
)
AT_EVALUATIONS = frozenset({"eval/score_mean", "eval/gold_mean", "eval/gold_se", "eval/win_rate"})
