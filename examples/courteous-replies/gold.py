"""The gold reward: how courteous a reply is, in points. It is the truth that the preference labels are drawn from.

A function in TRL's reward convention, made of a few countable things, so that the truth of the example is known and
stands outside of what is trained. In a job spec:

    eval_gold: {functions: [{path: "gold.py:gold"}]}

The formula stands in the README. Only the standard library is used: this file alone is uploaded.
"""

import re
from typing import Any

COURTESY = {
    "thanks": r"\bthank(s| you)\b|\bgrateful\b|\bappreciate\b",
    "apology": r"\bsorry\b|\bapolog",
    "please": r"\bplease\b",
    "offer": r"\bhappy to help\b|\bhere to help\b|\blet me know\b|\bhelp you\b|\bmore help\b|\bdo more for you\b",
    "wish": r"\bnice day\b|\bregards\b|\bi wish you\b|\bbest wishes\b|\benjoy\b",
}
RUDENESS = {
    "blame": r"\b(your|own) fault\b|\byou should have\b|\byourself\b|\byou are (wrong|using it wrong)\b"
    r"|\byou (clicked|always)\b|\bnobody made you\b|\byour own\b|\bmake up your mind\b|\bwhen we come\b",
    "dismissal": r"\bnot my problem\b|\bdeal with it\b|\bstop (asking|wasting|being)\b|\bcares\b|\bwhatever\b"
    r"|\bget over it\b|\bso what\b|\bfeel like it\b|\bsomewhere else\b|\bend of story\b|\bwast(e|ing)\b"
    r"|\bdo not write again\b|\bwhen we are open\b|\bnext time\b|\blike everybody\b|\bnot the only\b"
    r"|\breal customers\b|\bold house\b",
    "insult": r"\bstupid\b|\bsilly\b|\bcheap\b|\beven a child\b|\blearn to\b|\bopen your eyes\b|\bblind\b"
    r"|\bthink before\b|\b(read|think|complain) before\b|\bbefore you (complain|order)\b|\b(so|that) hard\b"
    r"|\bhow can anyone\b",
}
# Words that say nothing of the subject: of letters enough to count, but as likely in any message.
# fmt: off
FILLERS = frozenset((
    "about", "again", "already", "always", "another", "answer", "anything", "because", "before", "cannot", "could",
    "customer", "dear", "expected", "found", "great", "happy", "have", "hello", "help", "mails", "message", "month",
    "morning", "patience", "please", "really", "regards", "reply", "since", "sorry", "still", "support", "team",
    "thank", "thanks", "that", "their", "there", "these", "thing", "this", "today", "waiting", "want", "what",
    "when", "where", "which", "will", "with", "would", "write", "your",
))
# fmt: on
SUBJECT_LETTERS = 4
STEM = 5
RUDE_POINTS = 1.5
REPETITION_POINTS = 6.0
SENTENCE_AGAIN_POINTS = 3.0
# A sentence was said before when more than this share of its word triples was.
SAID_BEFORE = 0.5
KINDS_PER_SENTENCE = 2
FEWEST_WORDS, MOST_WORDS = 6, 45


def gold(prompts: list[str], completions: list[str], **kwargs: Any) -> list[float]:
    """Points of each reply, between -13.5 and 6; more is more courteous."""
    del kwargs
    return [sum(points(prompt, reply).values()) for prompt, reply in zip(prompts, completions, strict=True)]


def points(prompt: str, reply: str) -> dict[str, float]:
    """The summands of one reply's points."""
    text = reply.strip()
    words = _words(text)
    fresh, again = told(text)
    said = " ".join(fresh)
    repetition = SENTENCE_AGAIN_POINTS * again + REPETITION_POINTS * _repeated_share(_words(said))
    return {
        "courtesy": float(len(_courtesies(fresh))),
        "subject": float(bool(_subjects(_last_message(prompt)) & _subjects(said))),
        "rudeness": -RUDE_POINTS * sum(bool(re.search(pattern, text.lower())) for pattern in RUDENESS.values()),
        "shouting": -float(bool(re.search(r"\b[A-Z]{3,}\b|[!?]{2,}", text)) or text.count("!") > 2),
        "repetition": -min(REPETITION_POINTS, repetition),
        "unfinished": -float(not text.endswith((".", "!", "?"))),
        "length": -float(not FEWEST_WORDS <= len(words) <= MOST_WORDS),
    }


def told(text: str) -> tuple[list[str], int]:
    """The sentences that say something for the first time, and how many others say again what stood before them."""
    fresh: list[str] = []
    heard: set[tuple[str, ...]] = set()
    again = 0
    for sentence in re.split(r"(?<=[.!?])\s+", text):
        words = _words(sentence)
        # A sentence of one or two words has no triple; it stands for itself.
        parts = _triples(words) or [tuple(words)]
        if sum(part in heard for part in parts) > SAID_BEFORE * len(parts):
            again += 1
        else:
            fresh.append(sentence)
        heard.update(parts)
    return fresh, again


def _courtesies(sentences: list[str]) -> set[str]:
    """The kinds of courtesy, each counted once; of one sentence only the first two, so that a list of words gains
    little."""
    found: set[str] = set()
    for sentence in sentences:
        here = [kind for kind, pattern in COURTESY.items() if re.search(pattern, sentence.lower())]
        found.update(here[:KINDS_PER_SENTENCE])
    return found


def _last_message(prompt: str) -> str:
    """What the customer wrote last, without the marks of the transcript."""
    return prompt.rpartition("Human:")[2].removesuffix("Assistant:")


def _subjects(text: str) -> set[str]:
    """Beginnings of the words that may name a subject; `parcels` and `parcel` are one."""
    words = re.findall(r"[a-z]+", text.lower())
    return {word[:STEM] for word in words if len(word) >= SUBJECT_LETTERS and word not in FILLERS}


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())


def _triples(words: list[str]) -> list[tuple[str, ...]]:
    return list(zip(words, words[1:], words[2:], strict=False))


def _repeated_share(words: list[str]) -> float:
    """Share of the word triples that stood in the reply before."""
    triples = _triples(words)
    return 1.0 - len(set(triples)) / len(triples) if triples else 0.0
