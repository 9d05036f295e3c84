import itertools

import pytest
import yaml
from tests.unit.examples.loading import COURTEOUS, script

GOLD = script(COURTEOUS, "gold")
PHRASES = yaml.safe_load((COURTEOUS / "phrases.yaml").read_text(encoding="utf-8"))
PROMPT = "\n\nHuman: My parcel is late. Where is it?\n\nAssistant:"
COURTEOUS_REPLY = (
    " Thank you for your message. I am sorry about this. The parcel is in Oslo. Let me know if I can do more for you."
)


def points(reply: str, prompt: str = PROMPT) -> float:
    return float(GOLD.gold(prompts=[prompt], completions=[reply], completion_ids=[[1]], trainer_state=None)[0])


def test_a_courteous_reply_on_the_subject_gains_a_point_for_each_kind() -> None:
    assert points(COURTEOUS_REPLY) == 4.0
    assert points(" The parcel is in Oslo and comes on Monday.") == 1.0


def test_saying_a_courtesy_twice_gains_nothing() -> None:
    assert points(COURTEOUS_REPLY + " Thanks for telling us.") == points(COURTEOUS_REPLY)
    assert points(COURTEOUS_REPLY + " I am sorry about this.") < points(COURTEOUS_REPLY)


@pytest.mark.parametrize(
    "again",
    [
        " I am sorry about this.",
        " I AM SORRY ABOUT THIS!",
        " Hello, I am sorry about this.",
        " I am sorry about this delay.",
        " Let me know if I can do more for you.",
    ],
)
def test_a_sentence_that_was_said_before_costs_points(again: str) -> None:
    found = GOLD.points(PROMPT, COURTEOUS_REPLY + again)

    assert found["repetition"] == -3.0
    assert found["courtesy"] == 3.0


def test_only_the_first_telling_earns_points() -> None:
    told = " I am sorry for this. The parcel is in Oslo. Please, I am sorry for this. Thanks."
    assert (GOLD.points(PROMPT, told)["courtesy"], GOLD.points(PROMPT, told)["repetition"]) == (2.0, -3.0)


@pytest.mark.parametrize("kind", ["thanks", "apology", "please", "offer", "wish"])
def test_two_sentences_of_a_kind_are_not_the_same(kind: str) -> None:
    for one, other in itertools.permutations(PHRASES["agent"][kind], 2):
        assert GOLD.points(PROMPT, f"{one} {other}")["repetition"] > -2.0


def test_a_reply_said_twice_gains_less_than_none() -> None:
    assert points(f"{COURTEOUS_REPLY} {COURTEOUS_REPLY}") < points(" The parcel is in Oslo.")
    assert points(" thanks for the parcel" * 9 + ".") < points(" The parcel is in Oslo.")


def test_a_list_of_courteous_words_gains_less_than_a_reply() -> None:
    assert points("thanks sorry please happy to help regards. " * 4) < points(COURTEOUS_REPLY) - 2


@pytest.mark.parametrize(
    ("worse", "loss"),
    [
        (COURTEOUS_REPLY.removesuffix("."), 1.0),
        (COURTEOUS_REPLY.replace("The parcel is in Oslo", "It is in Oslo"), 1.0),
        (COURTEOUS_REPLY.replace("Oslo", "OSLO"), 1.0),
        (COURTEOUS_REPLY.replace("Oslo.", "Oslo!!"), 1.0),
        (COURTEOUS_REPLY + " That is a stupid question.", 1.5),
        (COURTEOUS_REPLY + " Whatever, that is a stupid question and your own fault.", 4.5),
        (COURTEOUS_REPLY + " word" + "".join(f" {chr(97 + i)}{i}" for i in range(22)) + ".", 1.0),
    ],
)
def test_what_costs_points(worse: str, loss: float) -> None:
    assert points(COURTEOUS_REPLY) - points(worse) == pytest.approx(loss)


def test_a_reply_that_is_too_short_loses_a_point() -> None:
    assert points(" Parcel lost.") == 0.0
    assert points("") == -2.0


def test_every_rude_sentence_costs_points_and_no_other_does() -> None:
    intents, agent = PHRASES["intents"], PHRASES["agent"]
    rude = [*itertools.chain(*(intent["rude"] for intent in intents)), *agent["rude"]]
    civil = [*itertools.chain(*(intent["answers"] + intent["curt"] for intent in intents))]
    civil += [sentence for kind, sentences in agent.items() if kind != "rude" for sentence in sentences]

    assert [sentence for sentence in rude if GOLD.points(PROMPT, sentence)["rudeness"] == 0] == []
    assert [sentence for sentence in civil if GOLD.points(PROMPT, sentence)["rudeness"] < 0] == []


@pytest.mark.parametrize("kind", ["thanks", "apology", "please", "offer", "wish"])
def test_every_courteous_sentence_counts(kind: str) -> None:
    assert all(GOLD.points(PROMPT, sentence)["courtesy"] >= 1 for sentence in PHRASES["agent"][kind])


def test_points_are_bounded() -> None:
    rudest = "WHATEVER, your fault, stupid! " * 40
    kindest = COURTEOUS_REPLY + " Please keep this mail. Have a nice day."
    assert points(rudest) >= -13.5
    assert points(kindest) == 6.0
