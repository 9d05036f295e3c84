"""A model's tokenizer without transformers: the same ids, the same chat prompts, in processes that import no torch."""

from collections.abc import Sequence
from pathlib import Path

from quatrain.digests import canonical_json, sha256_hex
from quatrain.errors import InvalidData
from quatrain.json_values import object_at
from quatrain.text.backend import Backends, build_backends
from quatrain.text.chat_template import SIMPLE_TEMPLATE, ChatTemplate, Messages
from quatrain.text.folder_files import TokenizerFiles, read_files

_MARK = "quatrain"
_QUESTION = {"role": "user", "content": _MARK}


class Tokenizer:
    """A tokenizer: text to ids and back, chat prompts, and the ids that end a completion. Immutable and thread-safe.

    digest: sha256 over tokenizer.json (without its padding and truncation), special tokens and template; equal digests
        mean equal ids for every text.
    vocab_size: number of tokens, added ones included (the model's embedding may be larger).
    eos_token_ids: ids that end a completion, in the order of the file that names them; last, the token that the chat
        template writes after an answer.
    eos_token_id: the one that plain text ends with: the tokenizer's own end token if it is in the set.
    turn_end: the token after an answer, if no file names it as an end; None where one does.
    special_tokens: name (`eos_token`, `pad_token`, ...) to text, of those that the folder names.
    template: the chat template in use.
    has_chat_template: whether it is the folder's own, not the simple one.
    """

    def __init__(self, files: TokenizerFiles, backends: Backends) -> None:
        """Build from files that are read; callers use `Tokenizer.load`."""
        self._backends = backends
        self.special_tokens = {name: str(fields["content"]) for name, fields in files.named_tokens.items()}
        self.vocab_size: int = backends.encoder.get_vocab_size(with_added_tokens=True)
        self.template = SIMPLE_TEMPLATE if files.template is None else files.template
        self.has_chat_template = files.template is not None
        self._chat = ChatTemplate(self.template, backends.named_tokens)
        self._keeps_text: bool | None = None
        self.eos_token_ids = _eos_token_ids(files, backends, self.vocab_size)
        self.turn_end: str | None = None
        turn_end = self._turn_end_id() if files.template is not None else None
        if turn_end is not None and turn_end not in self.eos_token_ids:
            # As chat servers are set up for such models: without it a chat model would go on after its answer.
            self.turn_end = backends.encoder.id_to_token(turn_end)
            self.eos_token_ids = (*self.eos_token_ids, turn_end)
        own_end = _token_id(backends, files, "eos_token")
        self.eos_token_id = own_end if own_end in self.eos_token_ids else self.eos_token_ids[0]
        content = {**files.tokenizer, "truncation": None, "padding": None}
        try:
            said = canonical_json({"tokenizer": content, "special": files.named_tokens, "template": self.template})
        except ValueError as error:  # NaN, in a part that is not built from
            raise InvalidData(f"{files.folder / 'tokenizer.json'} is not a tokenizer: {error}.") from None
        self.digest = sha256_hex(said)

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """Read a model folder.

        Raises:
            InvalidData: no tokenizer.json, a broken file, remote code, or no end of sequence anywhere.
        """
        files = read_files(folder)
        return cls(files, build_backends(files))

    def ids(self) -> set[int]:
        """Return every id that stands for a token; an embedding with more rows is padded."""
        return set(self._backends.encoder.get_vocab(with_added_tokens=True).values())

    def encode(self, text: str) -> list[int]:
        """Return the ids of the text as it is: no template, no special tokens added.

        Raises InvalidData for text that the tokenizer has no token for, not even an unknown one.
        """
        try:
            ids: list[int] = self._backends.encoder.encode(text, add_special_tokens=False).ids
        except Exception as error:  # noqa: BLE001  the binding raises bare Exception, as when it reads a tokenizer
            raise InvalidData(f"the tokenizer has no token for a part of {text[:60]!r} ({error})") from None
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of the ids, special tokens left out."""
        return self._backends.decoder.decode(list(ids), skip_special_tokens=True)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return the text of each id alone, special tokens as they are named; parts of characters as their bytes."""
        pieces = []
        for token in ids:
            text = self._backends.decoder.decode([token], skip_special_tokens=False)
            name = self._backends.encoder.id_to_token(token)
            pieces.append(text if text and "\ufffd" not in text else f"<{name}>")
        return pieces

    def render(self, messages: Messages, add_generation_prompt: bool) -> str:
        """Return the conversation as the chat template writes it. Raises InvalidData."""
        return self._chat.render(messages, add_generation_prompt)

    def encode_prompt(self, prompt: str | Messages) -> list[int]:
        """Return the ids of a prompt: a string as it is, messages through the template with the generation prompt.

        Raises InvalidData when the template refuses the messages or leaves out what they say.
        """
        if isinstance(prompt, str):
            return self.encode(prompt)
        self._check_template()
        return self.encode(self.render(prompt, add_generation_prompt=True))

    def encode_completion(self, prompt: str | Messages, completion: str) -> list[int]:
        """Return the ids of a completion as the model generates it after the prompt, with an end token at its end.

        Prompt and completion are tokenised apart, because that is how a rollout sees them: the prompt's ids are given
        and the model continues. After messages, the completion is what the template writes for the assistant's message
        after the generation prompt, up to the end token. If the template does not continue its own generation prompt,
        it is the bare text. Raises InvalidData when the template refuses the conversation.
        """
        ids = self.encode(completion) if isinstance(prompt, str) else self._encode_answer(prompt, completion)
        return ids if ids and ids[-1] in self.eos_token_ids else [*ids, self.eos_token_id]

    def _encode_answer(self, prompt: Messages, completion: str) -> list[int]:
        opening = self.render(prompt, add_generation_prompt=True)
        whole = self.render([*prompt, {"role": "assistant", "content": completion}], add_generation_prompt=False)
        ids = self.encode(whole.removeprefix(opening) if whole.startswith(opening) else completion)
        ends = [position for position, token in enumerate(ids) if token in self.eos_token_ids]
        # Many templates write a line break, some a second end, after the end token: no rollout gets there. An end
        # within the answer's own text is not the template's.
        own = sum(token in self.eos_token_ids for token in self.encode(completion))
        return ids[: ends[min(own, len(ends) - 1)] + 1] if ends else ids

    def _turn_end_id(self) -> int | None:
        """Return the token that the template writes right after an answer; None where it writes none or fails."""
        try:
            text = self.render([_QUESTION, {"role": "assistant", "content": _MARK}], add_generation_prompt=False)
            ids = self.encode(text.rpartition(_MARK)[2]) if _MARK in text else []
        except InvalidData:
            return None
        added = self._backends.encoder.get_added_tokens_decoder()
        return next((token for token in ids if token in added), None)

    def _check_template(self) -> None:
        """Raise InvalidData if the template leaves out what a user says. One that refuses the trial is not judged."""
        if self._keeps_text is None:
            try:
                self._keeps_text = _MARK in self.render([_QUESTION], add_generation_prompt=True)
            except InvalidData:
                self._keeps_text = True
        if not self._keeps_text:
            raise InvalidData(
                "The chat template leaves out the text of messages: their content is a string, and it may want a list "
                'of parts. Change chat_template to write message["content"] when it is a string, or give prompts as '
                "plain text."
            )


def _token_id(backends: Backends, files: TokenizerFiles, name: str) -> int | None:
    fields = files.named_tokens.get(name)
    return None if fields is None else backends.encoder.token_to_id(fields["content"])


def _eos_token_ids(files: TokenizerFiles, backends: Backends, vocab_size: int) -> tuple[int, ...]:
    sources = (
        ("generation_config.json", files.generation_config.get("eos_token_id")),
        ("config.json", files.model_config.get("eos_token_id")),
        ("config.json", object_at(files.model_config, "text_config").get("eos_token_id")),
        ("tokenizer_config.json", _token_id(backends, files, "eos_token")),
    )
    for name, value in sources:
        if value is None or value == []:
            continue
        values = value if isinstance(value, list) else [value]
        ids = [item for item in values if type(item) is int and item >= 0]
        if len(ids) != len(values):
            raise InvalidData(f"{files.folder / name}: eos_token_id must be whole numbers from 0, not {value!r}.")
        limit = max(vocab_size, _config_vocab_size(files))
        if max(ids) >= limit:
            raise InvalidData(
                f"{files.folder / name}: eos_token_id {max(ids)} is not in the vocabulary of {limit} tokens."
            )
        return tuple(dict.fromkeys(ids))
    raise InvalidData(
        f"The tokenizer in {files.folder} has no end-of-sequence token, so no completion could end. Name one as "
        "eos_token_id in generation_config.json or as eos_token in tokenizer_config.json."
    )


def _config_vocab_size(files: TokenizerFiles) -> int:
    size = files.model_config.get("vocab_size")
    return size if type(size) is int else 0
