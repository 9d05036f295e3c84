"""Keys that people know from other tools and that Quatrain refuses: the error gives the reason, not "unknown key"."""

_CHANGES_SAMPLING = (
    "changes the distribution that completions are sampled from, so their log-probabilities would not be the policy's "
    "and PPO's ratio, KL and importance weights would be wrong; leave it out (temperature is allowed)"
)
_ENDS_EARLY = (
    "a completion ends at the end-of-sequence token or at max_new_tokens and nowhere else: cutting at a string changes "
    "the distribution that PPO trains; leave it out"
)
_FROM_IDS = "the end of a completion is known by its finish reason and length, never by comparing ids; leave it out"

_SAMPLING_KEYS = (
    "top_p",
    "top_k",
    "min_p",
    "top_h",
    "typical_p",
    "epsilon_cutoff",
    "eta_cutoff",
    "min_new_tokens",
    "min_tokens",
    "min_length",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
    "length_penalty",
    "encoder_repetition_penalty",
    "no_repeat_ngram_size",
    "num_beams",
    "diversity_penalty",
    "penalty_alpha",
    "do_sample",
    "bad_words",
    "bad_words_ids",
    "sequence_bias",
    "logit_bias",
    "suppress_tokens",
    "begin_suppress_tokens",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "exponential_decay_length_penalty",
    "guidance_scale",
)

REFUSED_KEYS: dict[str, str] = {
    **dict.fromkeys(_SAMPLING_KEYS, _CHANGES_SAMPLING),
    "stop": _ENDS_EARLY,
    "stop_strings": _ENDS_EARLY,
    "stop_token_ids": _ENDS_EARLY,
    "eos_token_id": "the end-of-sequence ids are read from the model folder; leave it out",
    "pad_token_id": _FROM_IDS,
    "value_off": "write `value: null` to turn the value clip off",
    "stop_token": _ENDS_EARLY,
    "stop_token_id": _ENDS_EARLY,
    "whiten_rewards": "reward whitening adds a bonus for each token and does not exist here; scale with reward.scale",
}
