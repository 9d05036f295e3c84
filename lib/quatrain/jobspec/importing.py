"""Makes a spec of another tool's options, and says field by field what became what.

Options that are a field under another name are copied by the table in `habits`. What several options give together, or
in another unit, is worked out here. Nothing is dropped without a word: an option has a field, or a reason.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from quatrain.errors import InvalidSpec
from quatrain.jobspec.habits import line_of
from quatrain.jobspec.options import Options
from quatrain.jobspec.overrides import take_field
from quatrain.jobspec.parsing import parse_spec
from quatrain.json_values import JsonObject, JsonValue

FILL_IN = "FILL-IN"
"""Stands for a model or data set that the options do not name. It is no path, so a submission names the field."""
STEPS = 100


@dataclass
class Imported:
    """A spec in the making, and a line for each option: what it became, or why it has no field."""

    tool: str
    options: Options
    document: JsonObject = field(default_factory=dict)
    became: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    to_fill_in: list[str] = field(default_factory=list)

    def set(self, path: str, value: object, why: str) -> None:
        """Set a field of the document and say why."""
        *sections, name = path.split(".")
        target: JsonObject = self.document
        for section in sections:
            inner = target.setdefault(section, {})
            if not isinstance(inner, dict):
                inner = target[section] = {"uri": inner}
            target = inner
        target[name] = value  # type: ignore[assignment]
        self.became.append(f"{path}: {_shown(value)}  <- {why}")

    def number(self, *names: str) -> float | None:
        """Return the first of the options that is a number."""
        found = (self.options.get(name) for name in names)
        return next((value for value in found if isinstance(value, int | float) and not isinstance(value, bool)), None)

    def get(self, path: str) -> JsonValue:
        """Return a field that was set; None for another."""
        value: JsonValue = self.document
        for name in path.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        return value


def import_options(tool: str, options: Options) -> Imported:
    """Return the spec that options of `trl`, `openrlhf` or `verl` make. What a spec refuses is left out and named."""
    made = Imported(tool, options)
    made.set("name", _name(options, tool), _first(options, NAMES) or "the tool")
    for option, value in options.items():
        _take(made, option, value)
    for derive in (_batch, _steps, _minibatches, _warmup):
        derive(made)
    _fill_in(made)
    _check(made)
    said = "\n".join((*made.became, *made.left_out, *made.to_fill_in))
    unused = (option for option in options if option in WORKED_OUT and option.rpartition(".")[2] not in said)
    made.left_out += [f"{option}: {_shown(options[option])} is not needed beside the others" for option in unused]
    return made


NAMES = ("run_name", "exp_name", "wandb_run_name", "trainer.experiment_name", "logger.wandb.run_name")


def _take(made: Imported, option: str, value: object) -> None:
    line = line_of(made.tool, option)
    special = SPECIAL.get((line.derived if line else "") or option)
    if line is None:
        made.left_out.append(f"{option}: {_shown(value)} is not an option of {made.tool} that is known here")
    elif _is_shell(value):
        made.left_out.append(f"{option}: {_shown(value)} holds a shell variable that the script does not set")
    elif value is None or (value is False and line.fields != ("deterministic",)):
        made.left_out.append(f"{option}: {_shown(value)} turns nothing on here")
    elif line.derived:
        if special is None or not special(made, option, value):
            _explain_later(made, option, value, line.note)
    elif not line.fields:
        made.left_out.append(f"{option}: {line.note}")
    else:
        for path in line.fields:
            _copy(made, path, option, value)


def _explain_later(made: Imported, option: str, value: object, note: str) -> None:
    """Say an option that is worked out with others after all have been read."""
    if option not in WORKED_OUT:
        made.left_out.append(f"{option}: {_shown(value)} cannot be taken over: {note}")


def _copy(made: Imported, path: str, option: str, value: object) -> None:
    negative = isinstance(value, int | float) and value <= 0
    if path in COUNTED and negative:
        made.left_out.append(f"{option}: {_shown(value)} means never; {path} keeps its default")
        return
    if isinstance(value, list) and path.endswith(".uri"):
        made.left_out += [f"{option}: {_shown(each)}: a spec names one data set; join the files" for each in value[1:]]
        value = value[0]
    if path.endswith(("uri", "reward.model")) and isinstance(value, str):
        value = _reference(value, data=path.startswith("ppo."))
    made.set(path, _as_float(path, value), option)


COUNTED = (
    "checkpoint.every_steps",
    "checkpoint.keep_last",
    "ppo.eval_every",
    "ppo.optimizer.value_warmup_steps",
    "ppo.optimizer.warmup_steps",
)
WHOLE = re.compile(r"(steps|every|last|epochs|minibatches|_tokens|_length|seed|per_prompt|per_step)$")


def _as_float(path: str, value: object) -> object:
    """Return 1e5 as the whole number that a count takes, and a number for a text such as "1e-6"."""
    if isinstance(value, str) and re.fullmatch(r"[-+]?[0-9.]+(e[-+]?[0-9]+)?", value, re.IGNORECASE):
        value = float(value)
    if isinstance(value, float) and value.is_integer() and WHOLE.search(path):
        return int(value)
    return value


def _reference(text: str, *, data: bool) -> str:
    """Return what a spec calls a model or data set: an ORG/NAME is one of the hub's, all else a path."""
    if "://" in text or not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", text):
        return text
    if data and re.search(r"\.(jsonl?|ndjson|parquet|csv)(\.\w+)?$", text):
        return text
    return f"hf://datasets/{text}" if data else f"hf://{text}"


def _schedule(made: Imported, option: str, value: object) -> bool:
    for name in ("cosine", "linear", "constant"):
        if str(value).startswith(name):
            made.set("ppo.optimizer.schedule", name, f"{option} {value}" if value != name else option)
            return True
    return False


def _dtype(made: Imported, option: str, value: object) -> bool:
    names = {"bf16": "bfloat16", "bfloat16": "bfloat16", "float32": "float32", "fp32": "float32"}
    name = "bfloat16" if option == "bf16" and value is True else names.get(str(value))
    if name is not None:
        made.set("model.dtype", name, option)
    return name is not None


def _pair(made: Imported, option: str, value: object) -> bool:
    if not isinstance(value, list) or len(value) != 2:
        return False
    made.set("ppo.clip.low", value[0], option)
    made.set("ppo.clip.high", value[1], option)
    return True


def _reward_clip(made: Imported, option: str, value: object) -> bool:
    if not isinstance(value, list) or len(value) != 2 or value[0] != -value[1]:
        return False
    made.set("reward.clip", float(value[1]), option)
    return True


def _functions(made: Imported, option: str, value: object) -> bool:
    """Name the reward function of a file: verl's `compute_score`, or OpenRLHF's `reward_func`."""
    path = next((str(v) for k, v in made.options.items() if k.endswith("custom_reward_function.path")), str(value))
    names = (str(v) for k, v in made.options.items() if k.endswith("custom_reward_function.name"))
    function = next(names, "compute_score" if made.tool == "verl" else "reward_func")
    dotted = re.fullmatch(r"([A-Za-z_]\w*(?:\.\w+)*)\.(\w+)", path) if made.tool == "trl" else None
    if dotted is not None and not path.endswith(".py"):
        made.set("reward.functions", [{"path": f"{dotted[1]}:{dotted[2]}"}], option)
        return True
    if not path.endswith(".py"):
        return False
    if option.endswith(".name"):
        return True
    made.set("reward.functions", [{"path": f"{path}:{function}"}], f"{option}; its arguments are those of TRL here")
    return True


def _estimator(made: Imported, option: str, value: object) -> bool:
    if value == "gae":
        made.set("ppo.advantage.estimator", "gae", option)
    else:
        made.left_out.append(f"{option}: {value} does not exist here; the job trains a value model with gae")
    return True


def _controller(made: Imported, option: str, value: object) -> bool:
    if value not in ("adaptive", True):
        made.set("ppo.kl.controller", "fixed", option)
        return True
    target = made.number("target")
    if target is None:
        return False
    made.set("ppo.kl.controller", "adaptive", option)
    made.set("ppo.kl.target", float(target), "target")
    return True


def _kl_in_reward(made: Imported, option: str, value: object) -> bool:
    made.set("ppo.kl.placement", "reward", option)
    return True


def _truncation(made: Imported, option: str, value: object) -> bool:
    name = {"error": "refuse", "left": "left"}.get(str(value))
    if name is not None:
        made.set("ppo.truncate_prompt", name, option)
    return name is not None


def _staleness(made: Imported, option: str, value: object) -> bool:
    made.set("ppo.staleness", 1, option)
    return True


def _betas(made: Imported, option: str, value: object) -> bool:
    if option == "adam_beta1":
        made.set("ppo.optimizer.betas", [value, made.number("adam_beta2") or 0.999], "adam_beta1, adam_beta2")
    return "adam_beta1" in made.options


def _named(made: Imported, option: str, value: object) -> bool:
    return True


SPECIAL: dict[str, Callable[[Imported, str, object], bool]] = {
    "name": _named,
    "ppo.optimizer.schedule": _schedule,
    "model.dtype": _dtype,
    "ppo.clip": _pair,
    "reward.clip": _reward_clip,
    "reward.functions": _functions,
    "ppo.advantage.estimator": _estimator,
    "ppo.kl.controller": _controller,
    "ppo.kl.target": lambda made, option, value: "adap_kl_ctrl" in made.options,
    "ppo.kl.coef": _kl_in_reward,
    "ppo.truncate_prompt": _truncation,
    "ppo.staleness": _staleness,
    "ppo.optimizer.betas": _betas,
}


WORKED_OUT = (
    "batch_size",
    "per_device_train_batch_size",
    "generation_batch_size",
    "total_episodes",
    "max_steps",
    "num_train_epochs",
    "mini_batch_size",
    "train_batch_size",
    "num_episodes",
    "max_samples",
    "trainer.total_epochs",
    "warmup_ratio",
    "lr_warmup_ratio",
    "train.batch_size",
    "train.num_episodes",
    "data.max_samples",
    "actor.lr_warmup_ratio",
    "actor_rollout_ref.actor.ppo_mini_batch_size",
    "actor_rollout_ref.actor.optim.lr_warmup_steps_ratio",
)
"""Options that the functions below say a word about."""


def _batch(made: Imported) -> None:
    """TRL counts completions a device; a step has prompts, over all devices."""
    if made.tool != "trl":
        return
    samples = int(made.number("num_generations") or 1)
    given = made.number("batch_size", "generation_batch_size")
    device = made.number("per_device_train_batch_size")
    if given is None and device is None:
        return
    accumulated = int(made.number("gradient_accumulation_steps") or 1)
    batch = int(given) if given is not None else int(device or 1) * accumulated
    source = (
        "batch size" if given is not None else f"{int(device or 1)} a device x {accumulated} accumulated, one device"
    )
    prompts = max(1, batch // samples)
    made.set("ppo.prompts_per_step", prompts, source + (f" / {samples} generations" if samples > 1 else ""))


def _steps(made: Imported) -> None:
    if made.get("ppo.steps") is not None:
        return
    prompts, samples = _count(made, "ppo.prompts_per_step", 64), _count(made, "ppo.samples_per_prompt", 1)
    if (steps := made.number("max_steps")) is not None and steps > 0:
        made.set("ppo.steps", int(steps), "max_steps")
    elif (episodes := made.number("total_episodes")) is not None:
        made.set(
            "ppo.steps", max(1, math.ceil(episodes / (prompts * samples))), f"total_episodes / {prompts * samples}"
        )
    elif (rows := made.number("max_samples", "data.max_samples")) is not None and rows < 1e8:
        episodes = made.number("num_episodes", "train.num_episodes") or 1
        made.set("ppo.steps", max(1, math.ceil(rows * episodes / prompts)), f"max_samples x num_episodes / {prompts}")
    else:
        made.set("ppo.steps", STEPS, "nothing: a placeholder")
        given = [name for name in ("num_train_epochs", "num_episodes", "trainer.total_epochs") if name in made.options]
        passes = f" ({given[0]} counts passes over the data: passes x rows / {prompts})" if given else ""
        made.to_fill_in.append(f"ppo.steps, now {STEPS}{passes}")


def _minibatches(made: Imported) -> None:
    prompts, samples = _count(made, "ppo.prompts_per_step", 64), _count(made, "ppo.samples_per_prompt", 1)
    option, whole = {
        "trl": ("mini_batch_size", prompts * samples),
        "openrlhf": ("train_batch_size", prompts * samples),
        "verl": ("actor_rollout_ref.actor.ppo_mini_batch_size", prompts),
    }[made.tool]
    size = made.number(option, "train.batch_size") if made.tool == "openrlhf" else made.number(option)
    if size is not None and size > 0:
        made.set("ppo.optimizer.minibatches", max(1, round(whole / size)), f"{whole} / {option} {int(size)}")


def _warmup(made: Imported) -> None:
    names = ("warmup_ratio", "lr_warmup_ratio", "actor.lr_warmup_ratio")
    ratio = made.number(*names, "actor_rollout_ref.actor.optim.lr_warmup_steps_ratio")
    if ratio and made.get("ppo.optimizer.warmup_steps") is None:
        steps = _count(made, "ppo.steps", STEPS)
        made.set("ppo.optimizer.warmup_steps", round(ratio * steps), f"warmup_ratio {ratio} x {steps} steps")


def _count(made: Imported, path: str, default: int) -> int:
    value = made.get(path)
    return int(value) if isinstance(value, int | float) else default


def _fill_in(made: Imported) -> None:
    if made.options.get("algorithm.use_kl_in_reward") is False:
        made.set("ppo.kl.coef", 0.0, "algorithm.use_kl_in_reward false")
    elif made.tool == "verl" and made.get("ppo.kl.coef") and "algorithm.use_kl_in_reward" not in made.options:
        made.left_out.append("algorithm.use_kl_in_reward is off in verl unless it is set; here ppo.kl.coef counts")
    if "num_generations" in made.options:
        made.left_out.append("GRPO's advantages within a group do not exist here: a value model is trained, with gae")
    reward = made.document.setdefault("reward", {})
    if isinstance(reward, dict) and reward.keys() >= {"model", "functions"}:
        made.became = [line for line in made.became if not line.startswith("reward.model: ")]
        made.left_out.append(f"reward.model: {reward.pop('model')}: a job has one source of scores, the function")
    if isinstance(reward, dict) and not reward.keys() & {"model", "functions", "data"}:
        reward["model"] = FILL_IN
        made.to_fill_in.append("reward.model, or reward.functions")
    for path, what in (("model.uri", "the model to train"), ("ppo.prompts.uri", "the prompts")):
        if made.get(path) is None:
            made.set(path, FILL_IN, "nothing")
            made.became.pop()
            made.to_fill_in.append(f"{path}, {what}")


def _check(made: Imported) -> None:
    """Leave out what a spec refuses, and say why, until the rest is sound."""
    for _ in range(len(made.became) + 1):
        try:
            parse_spec(made.document)
            return
        except InvalidSpec as error:
            for violation in error.violations:
                take_field(made.document, violation.field, None)
                made.became = [line for line in made.became if not line.startswith(f"{violation.field}: ")]
                made.left_out.append(f"{violation.field}: {violation.description}")


def _name(options: Options, tool: str) -> str:
    text = str(options.get(_first(options, NAMES), ""))
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:63].strip("-") or f"from-{tool}"


def _first(options: Options, names: tuple[str, ...]) -> str:
    return next((name for name in names if isinstance(options.get(name), str)), "")


def _is_shell(value: object) -> bool:
    return any("$" in each for each in (value if isinstance(value, list) else [value]) if isinstance(each, str))


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)
