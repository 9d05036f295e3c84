"""What the models of a job must agree on, checked before the job exists: tokens, vocabularies, end tokens, lengths.

dtype and sampling settings need no check: every service is sent the job's own. What cannot be read from files, whether
the services compute the same from them, is probed before the first step (`logprob_probe`).
"""

from collections.abc import Sequence

from quatrain.data.tables import PromptTable, read_pairs, read_sft
from quatrain.errors import FieldViolation, InvalidData, InvalidSpec
from quatrain.jobspec import PpoSpec
from quatrain.orchestrator.submission.models import PinnedModel
from quatrain.stages import SFT, Stage
from quatrain.text.architecture import check_policy_heads
from quatrain.text.classifiers import NO_CLASSIFIER
from quatrain.text.tensors import value_head_tensors


def check_policy(policy: PinnedModel) -> list[str]:
    """Return warnings. Raises InvalidSpec when it is no language model, or an end token could never be sampled."""
    rows, tokens, known = policy.facts.vocab_size, policy.tokenizer.vocab_size, policy.tokenizer.ids()
    try:
        check_policy_heads(policy.facts.architectures)
    except InvalidData as error:
        _refuse("model.uri", [error.message])
    ends = policy.tokenizer.eos_token_ids
    outside = [token for token in ends if token >= rows]
    rule = "resize_token_embeddings and save the model, or name another end token as eos_token_id"
    texts = [f"its end token has the id {token}, its embedding only {rows} rows" for token in outside]
    _refuse("model.uri", texts, rule)
    unknown = [token for token in ends if token not in known]
    if len(unknown) == len(ends):
        text = (
            f"its end token has the id {unknown[0]} (eos_token_id of generation_config.json or config.json), which its "
            "tokenizer does not have, so no completion could end; name one that it has"
        )
        _refuse("model.uri", [text])
    warnings = []
    if unknown:
        warnings.append(f"model.uri: its tokenizer has no token for the end ids {unknown}: they are never sampled")
    if tokens > rows:
        warnings.append(
            f"model.uri: its tokenizer has {tokens} tokens, its embedding only {rows} rows: some cannot be used"
        )
    return [*warnings, *_turn_end(policy), *_value_head(policy)]


def check_prompts(tables: Sequence[PromptTable], policy: PinnedModel) -> int:
    """Return the tokens of the longest prompt. Raises InvalidSpec unless each token has a row in the embedding.

    For a thread: it walks over every prompt.
    """
    largest = max(int(ids.max()) for table in tables for ids in table.prompt_ids)
    if largest >= policy.facts.vocab_size:
        text = f"a prompt holds the token id {largest}, but model.uri has {policy.facts.vocab_size} embedding rows"
        _refuse("ppo.prompts", [text])
    return max(len(ids) for table in tables for ids in table.prompt_ids)


def check_reference(policy: PinnedModel, reference: PinnedModel) -> list[str]:
    """Return warnings. Raises InvalidSpec with both values unless the reference reads the policy's ids as they are."""
    problems = _same_tokens(policy, reference)
    if reference.facts.vocab_size != policy.facts.vocab_size:
        problems.append(
            f"its vocabulary has {reference.facts.vocab_size} entries, the policy's {policy.facts.vocab_size}"
        )
    _refuse("reference.model", problems, "both must be the same")
    return _other_ends("reference.model", policy, reference)


def check_reward_model(policy: PinnedModel, reward: PinnedModel, field: str) -> list[str]:
    """Return warnings. A model with another tokenizer gets the text, one with the policy's needs a row a token."""
    if reward.tokenizer.digest == policy.tokenizer.digest:
        tokens, rows = min(policy.tokenizer.vocab_size, policy.facts.vocab_size), reward.facts.vocab_size
        if rows < tokens:
            _refuse(field, [f"its embedding has {rows} rows, the policy samples from {tokens} tokens"])
        return _other_ends(field, policy, reward)
    differences = " and ".join(_same_tokens(policy, reward))
    return [f"{field}: {differences}: it is given the text of prompt and completion, not the policy's tokens"]


def check_lengths(ppo: PpoSpec, longest_prompt: int, readers: dict[str, PinnedModel]) -> None:
    """Raise InvalidSpec unless the longest prompt and a completion fit into every model that reads them, by field."""
    prompt, completion = longest_prompt, ppo.generation.max_new_tokens
    for field, model in readers.items():
        positions = model.facts.max_positions
        if positions is not None and prompt + completion > positions:
            text = (
                f"the longest prompt has {prompt} tokens and ppo.generation.max_new_tokens is {completion}: together "
                f"{prompt + completion}, but {field} takes {positions}; lower one, or set ppo.truncate_prompt: left"
            )
            raise InvalidSpec(text, [FieldViolation("ppo.generation.max_new_tokens", text)])


def check_rows(stage: Stage, data: bytes, policy: PinnedModel) -> None:
    """Raise InvalidSpec unless the rows of a prepared table of `sft` or `reward` fit into the trained model.

    They do if the longest one has a position for each token, and each token a row in the embedding.
    """
    if stage is SFT:
        rows = read_sft(data)
        parts = [*rows.prompt_ids, *rows.completion_ids]
        pairs = zip(rows.prompt_ids, rows.completion_ids, strict=True)
        longest = max(len(prompt) + len(completion) for prompt, completion in pairs)
    else:
        sides = read_pairs(data)
        parts = [*sides.chosen_ids, *sides.rejected_ids]
        longest = max(len(ids) for ids in parts)
    largest = max(int(ids.max()) for ids in parts if len(ids))
    if largest >= policy.facts.vocab_size:
        text = (
            f"a row holds the token id {largest}, but model.uri has {policy.facts.vocab_size} embedding rows: "
            "resize_token_embeddings and save the model, or leave that token out of rows and chat template"
        )
        _refuse(f"{stage}.data", [text])
    positions = policy.facts.max_positions
    if positions is not None and longest > positions:
        text = f"the longest row has {longest} tokens, but model.uri takes {positions}; lower {stage}.max_length"
        _refuse(f"{stage}.data", [text])


def check_trainable_reward(policy: PinnedModel) -> None:
    """Raise InvalidSpec if no reward model can be made of the policy's family."""
    family = policy.facts.model_type
    if family in NO_CLASSIFIER:
        text = (
            f"model.uri is of the family {family}, which transformers has no ...ForSequenceClassification of, so no "
            "reward model can be trained from it; name one of another family as reward.model, or use reward.functions"
        )
        _refuse("reward.data", [text])


def _turn_end(policy: PinnedModel) -> list[str]:
    """Return a warning if the chat template ends answers with a token that no file names as an end."""
    tokenizer = policy.tokenizer
    if tokenizer.turn_end is None:
        return []
    return [
        f"model.uri: its chat template ends an answer with {tokenizer.turn_end!r} (id {tokenizer.eos_token_ids[-1]}), "
        "which eos_token_id of generation_config.json does not name: it counts as an end, too, in SFT and in sampling; "
        "add it there so that other programs stop at it as well"
    ]


def _value_head(policy: PinnedModel) -> list[str]:
    """Return a warning for tensors of a value head, which a policy has no use for."""
    tensors = value_head_tensors(policy.facts.shapes)
    if not tensors:
        return []
    return [
        f"model.uri: its tensors {', '.join(tensors[:3])} are those of a value head and are not used; the value model "
        "starts as ppo.value_init says"
    ]


def _same_tokens(policy: PinnedModel, other: PinnedModel) -> list[str]:
    """Return how the tokenizer differs from the policy's, special tokens by name."""
    mine, its = policy.tokenizer, other.tokenizer
    if its.digest == mine.digest:
        return []
    problems = [f"its tokenizer is {its.digest[:12]}, the policy's is {mine.digest[:12]}"]
    for name in sorted(mine.special_tokens.keys() | its.special_tokens.keys()):
        theirs, ours = its.special_tokens.get(name), mine.special_tokens.get(name)
        if theirs != ours:
            problems.append(f"its {name} is {theirs!r}, the policy's {ours!r}")
    return problems


def _other_ends(field: str, policy: PinnedModel, other: PinnedModel) -> list[str]:
    """Return a warning if the end tokens differ, which may be meant, as with a base model beside one for chats."""
    mine, its = policy.tokenizer.eos_token_ids, other.tokenizer.eos_token_ids
    if its == mine:
        return []
    return [
        f"{field}: its sequences end with the ids {list(its)}, the policy's with {list(mine)} "
        "(eos_token_id of generation_config.json): it may not expect the ends that the policy samples"
    ]


def _refuse(field: str, problems: list[str], rule: str = "") -> None:
    if problems:
        text = " and ".join(problems) + (f": {rule}" if rule else "")
        raise InvalidSpec(f"{field}: {text}", [FieldViolation(field, text)])
