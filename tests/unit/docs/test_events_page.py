import re

from tests.unit.docs.pages import ROOT, code_in, rows, text_of

from quatrain.joblog import payloads


def test_all_types_of_the_log_are_documented_with_their_fields_and_no_others() -> None:
    documented = {row[0].strip("`"): set(code_in(row[1])) for row in rows(text_of("docs/events.md"))}

    assert documented == {each.TYPE: set(each.model_fields) for each in payloads.PAYLOADS}


def test_every_payload_is_in_the_table_of_types() -> None:
    defined = {
        each for each in vars(payloads).values() if isinstance(each, type) and issubclass(each, payloads.Payload)
    }

    assert defined - {payloads.Payload, payloads.Unknown} == set(payloads.PAYLOADS)


def test_every_type_is_written_somewhere() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "orchestrator").rglob("*.py"))

    unwritten = [each.__name__ for each in payloads.PAYLOADS if not re.search(rf"\b{each.__name__}\(", source)]
    assert unwritten == []
