"""Chat templates: rendered in a sandbox, with the names and filters that transformers gives to a template.

One departure: `strftime_now` answers with a fixed day, not today. A template that writes the date into the prompt would
otherwise make two runs of one spec differ.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser

from quatrain.errors import InvalidData
from quatrain.text.template_limits import BoundedEnvironment, bounded, rendered

Messages = Sequence[Mapping[str, object]]

SIMPLE_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '\\n\\n' + {'user': 'Human', 'assistant': 'Assistant'}.get(message.role, message.role | capitalize) + ': ' }}"
    "{{ message.content }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\n\\nAssistant:' }}{% endif %}"
)
"""Used, and stored with the model, when a folder has no template: turns as hh-rlhf writes them."""

TEMPLATE_DAY = datetime(2024, 7, 26, tzinfo=UTC)

_RUN_ERRORS = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


class _GenerationBlock(jinja2.ext.Extension):
    """The block `{% generation %}...{% endgeneration %}`, which marks text for training; its body is written."""

    tags = {"generation"}  # noqa: RUF012  jinja2 reads it from the class

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        """Return the statements between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """One compiled template."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        """Compile `source`, Jinja2 text that sees `special_tokens` (`bos_token`, ...) by name. Raises InvalidData."""
        environment = BoundedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, jinja2.ext.loopcontrols]
        )
        environment.filters["tojson"] = bounded(_to_json)
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = TEMPLATE_DAY.strftime
        try:
            self._template = environment.from_string(source)
        except _RUN_ERRORS as error:
            raise InvalidData(f"The chat template cannot be compiled: {error}.") from None
        self._special_tokens = dict(special_tokens)

    def render(self, messages: Messages, add_generation_prompt: bool) -> str:
        """Return the conversation as text. Raises InvalidData when the template refuses it or fails."""
        if not messages:
            raise InvalidData("A conversation needs at least one message.")
        # A key with null and an absent key mean the same in chat data, but templates test for presence.
        given = [{key: value for key, value in message.items() if value is not None} for message in messages]
        try:
            values = {
                "messages": given,
                "tools": None,
                "documents": None,
                "add_generation_prompt": add_generation_prompt,
                **self._special_tokens,
            }
            return rendered(lambda: self._template.generate(values))
        except _RUN_ERRORS as error:
            raise InvalidData(f"The chat template cannot render a conversation: {error}.") from None


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
