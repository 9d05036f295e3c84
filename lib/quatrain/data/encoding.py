"""Ids of a completion as the model will produce it after the prompt's ids."""

from quatrain.data.records import Prompt
from quatrain.text import Tokenizer


def encode_completion(tokenizer: Tokenizer, prompt: Prompt, completion: str) -> list[int]:
    """Ids of the completion alone, ending with an end-of-sequence id.

    Prompt and completion are tokenised apart, because that is how a rollout sees them: the prompt's ids are given and
    the model continues. After messages, the completion is what the template writes for the assistant's message behind
    the generation prompt, up to the end token; a template that does not continue its own generation prompt gives the
    bare text.
    Raises InvalidData when the template refuses the conversation.
    """
    if isinstance(prompt, str):
        ids = tokenizer.encode(completion)
    else:
        opening = tokenizer.render(prompt, add_generation_prompt=True)
        whole = tokenizer.render([*prompt, {"role": "assistant", "content": completion}], add_generation_prompt=False)
        ids = tokenizer.encode(whole.removeprefix(opening) if whole.startswith(opening) else completion)
        ends = [position for position, token in enumerate(ids) if token in tokenizer.eos_token_ids]
        # Many templates write a line break behind the end token, which is no part of the completion.
        ids = ids[: ends[-1] + 1] if ends else ids
    if not ids or ids[-1] not in tokenizer.eos_token_ids:
        ids = [*ids, tokenizer.eos_token_id]
    return ids
