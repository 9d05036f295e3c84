"""Templates that want to hold the process or its memory, or to get out of the sandbox."""

import time

import pytest

from quatrain.errors import InvalidData
from quatrain.text.chat_template import SIMPLE_TEMPLATE, ChatTemplate

GROWING = (
    "{% set ns = namespace(x='aaaaaaaaaa') %}{% for i in range(100) %}{% set ns.x = GROWN %}{% endfor %}{{ ns.x }}"
)
HELLO = [{"role": "user", "content": "hi"}]
ENDLESS = [
    "{% for i in range(9999) %}{% for j in range(9999) %}{{ i + j }}{% endfor %}{% endfor %}",
    "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    GROWING.replace("GROWN", "[ns.x, ns.x]"),
]
LARGE = [
    "{{ 'a' * 10**10 }}",
    "{{ 9999999999 ** 9999999999 }}",
    "{{ 'a'.center(10**10) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%1000000000d' | format(1) }}",
    "{{ '{:1000000000}'.format(1) }}",
    "{{ 'a' | indent(10**9) }}",
    "{{ [1] | slice(10**9) | list }}",
    "{{ messages | tojson(indent=10**9) }}",
    "{{ ['a'] * 10**9 }}",
    "{% for i in range(100000000) %}{% endfor %}",
    *(
        GROWING.replace("GROWN", grown)
        for grown in (
            "ns.x + ns.x",
            "ns.x ~ ns.x",
            "ns.x.replace('a', ns.x)",
            "ns.x | replace('a', ns.x)",
            "ns.x | list | join(ns.x)",
            "ns.x.join(ns.x | list)",
        )
    ),
]
CURIOUS = [
    "{{ ''.__class__.__mro__ }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ ('' | attr('__class__')).mro() }}",
    "{{ raise_exception.__globals__['os'].environ }}",
    "{{ messages.append(1) }}",
    "{% include '/etc/passwd' %}",
    "{{ self.__init__.__globals__ }}",
    "{{ lipsum(n=10000) }}",
]


@pytest.mark.parametrize("source", [*ENDLESS, *LARGE, *CURIOUS])
def test_a_hostile_template_is_refused_soon(source: str) -> None:
    started = time.thread_time()

    with pytest.raises(InvalidData, match="chat template cannot"):
        ChatTemplate(source, {}).render(HELLO, add_generation_prompt=True)

    assert time.thread_time() - started < 10.0


def test_long_conversations_are_no_attack() -> None:
    messages = [{"role": role, "content": "word " * 100} for _ in range(1000) for role in ("user", "assistant")]

    text = ChatTemplate(SIMPLE_TEMPLATE, {}).render(messages, add_generation_prompt=True)

    assert text.count("Human: ") == 1000


def test_loops_keep_what_templates_ask_them() -> None:
    source = "{% for m in messages %}{{ loop.index }}/{{ loop.length }}{{ loop.last }}{{ loop.previtem }}{% endfor %}"

    assert ChatTemplate(source, {}).render(HELLO, add_generation_prompt=True) == "1/1True"
