"""Writes the example's data: customer messages, replies of every tone, and preferences drawn from the gold reward.

    python make_data.py [--out FOLDER]

Everything follows from one seed; the same bytes come out each time. The sentences are in phrases.yaml, the truth that
the preference labels come from is in gold.py.
"""

import argparse
import json
import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from gold import gold

HERE = Path(__file__).resolve().parent
SEED = 20_240_601
ROWS = {"sft": 2400, "preferences": 3000, "prompts": 2000, "held_out": 128}
FILES = ("sft", "preferences", "preferences-hh", "prompts", "held_out")
MAX_MESSAGE_WORDS = 24
MAX_REPLY_WORDS = 30
# Share of the replies by tone.
TONES = {"courteous": 0.3, "plain": 0.3, "curt": 0.2, "rude": 0.2}
SLOPPY, SHOUTED, FLAWED = 0.2, 0.15, 0.6
COURTESIES = ("thanks", "apology", "please", "offer", "wish")

Phrases = dict[str, Any]
Row = dict[str, str]


@dataclass(frozen=True)
class Message:
    """A customer's message, what it is about, and the values of its slots."""

    text: str
    intent: dict[str, list[str]]
    slots: dict[str, str]

    @property
    def prompt(self) -> str:
        """The message as the model reads it: a transcript up to the agent's turn."""
        return f"\n\nHuman: {self.text}\n\nAssistant:"


class Writer:
    """Composes messages and replies; what it writes follows from the seed alone."""

    def __init__(self, phrases: Phrases, seed: int) -> None:
        self.random = random.Random(seed)
        self._phrases = phrases

    def message(self) -> Message:
        """A message of at most MAX_MESSAGE_WORDS words."""
        while True:
            intent = self.random.choice(self._phrases["intents"])
            slots = self._slots()
            text = joined(self._message_parts(intent)).format(**slots)
            if self.random.random() < SLOPPY:
                text = text.lower().replace(",", "").rstrip(".?! ")
            elif self.random.random() < 0.06:
                text = text.upper()
            if len(text.split()) <= MAX_MESSAGE_WORDS:
                return Message(text, intent, slots)

    def reply(self, message: Message) -> str:
        """A reply in a tone of chance, of at most MAX_REPLY_WORDS words."""
        compose = {
            "courteous": self._courteous,
            "plain": self._plain,
            "curt": self._curt,
            "rude": self._rude,
        }
        while True:
            tone = self.random.choices(list(TONES), list(TONES.values()))[0]
            text = joined(compose[tone](message.intent)).format(**message.slots)
            if len(text.split()) <= MAX_REPLY_WORDS:
                return text

    def flawed(self, reply: str, message: Message, other: Message) -> str:
        """A flawed reply: one that says things twice, is cut off, out of order, or off the subject."""
        # The policy repeats itself rather than learn new courtesies, if the reward model lets it. Hence most flaws are
        # repetitions, and of the very reply that they are compared with: a pair that differs in nothing else.
        flaws: dict[Callable[[], str], int] = {
            lambda: self._stuttered(reply): 4,
            lambda: self._resumed(reply): 3,
            lambda: f"{reply} {reply}": 1,
            lambda: self._cut(self.reply(message)): 1,
            lambda: self._shuffled(self.reply(message)): 1,
            lambda: self.reply(other): 1,
        }
        flaw = self.random.choices(list(flaws), list(flaws.values()))[0]
        return flaw()

    def _message_parts(self, intent: dict[str, list[str]]) -> list[str]:
        customer = self._phrases["customer"]
        parts = [self._pick(customer["greetings"])] if self.random.random() < 0.5 else []
        parts += self.random.sample(intent["issues"], 2 if self.random.random() < 0.25 else 1)
        if self.random.random() < 0.3:
            parts.append(self._pick(customer["annoyed" if self.random.random() < 0.6 else "kind"]))
        if self.random.random() < 0.8:
            parts.append(self._pick(intent["asks"]))
        if self.random.random() < 0.35:
            parts.append(self._pick(customer["closings"]))
        return parts

    def _courteous(self, intent: dict[str, list[str]]) -> list[str]:
        kinds = self.random.sample(COURTESIES, self.random.choice([1, 2, 2, 3]))
        before = [self._agent(kind) for kind in ("thanks", "apology") if kind in kinds]
        after = [self._agent(kind) for kind in ("please", "offer", "wish") if kind in kinds]
        greeting = [self._agent("greetings")] if self.random.random() < 0.4 else []
        return [*greeting, *before, self._pick(intent["answers"]), *after]

    def _plain(self, intent: dict[str, list[str]]) -> list[str]:
        answers = self.random.sample(intent["answers"], self.random.choice([1, 1, 2]))
        courtesy = [self._agent(self._pick(COURTESIES))] if self.random.random() < 0.3 else []
        return [*answers, *courtesy, *([self._agent("flat")] if self.random.random() < 0.3 else [])]

    def _curt(self, intent: dict[str, list[str]]) -> list[str]:
        return [self._pick(intent["curt"]), *([self._agent("flat")] if self.random.random() < 0.6 else [])]

    def _rude(self, intent: dict[str, list[str]]) -> list[str]:
        first = [self._pick(intent["curt" if self.random.random() < 0.5 else "answers"])]
        parts = [*(first if self.random.random() < 0.6 else []), self._pick(intent["rude"])]
        parts += [self._agent("rude")] if self.random.random() < 0.4 else []
        # Upper case leaves the slots alone: they are filled in afterwards.
        return [part.upper() if "{" not in part and self.random.random() < SHOUTED else part for part in parts]

    def _cut(self, text: str) -> str:
        words = text.split()
        return " ".join(words[: self.random.randint(1, max(1, len(words) - 1))]).rstrip(".?!,")

    def _stuttered(self, text: str) -> str:
        """Says one sentence two or three times in a row."""
        sentences = _sentences(text)
        place, times = self.random.randrange(len(sentences)), self.random.choice([1, 1, 2])
        return " ".join([*sentences[:place], *[sentences[place]] * times, *sentences[place:]])

    def _resumed(self, text: str) -> str:
        """Comes back to a sentence at the end."""
        return f"{text} {self.random.choice(_sentences(text))}"

    def _shuffled(self, text: str) -> str:
        words = text.split()
        self.random.shuffle(words)
        return " ".join(words)

    def _agent(self, kind: str) -> str:
        return self._pick(self._phrases["agent"][kind])

    def _pick(self, choices: Iterable[str]) -> str:
        return self.random.choice(list(choices))

    def _slots(self) -> dict[str, str]:
        numbers = {"number": (100, 999), "days": (2, 9), "amount": (10, 99)}
        drawn = {name: str(self.random.randint(*bounds)) for name, bounds in numbers.items()}
        return drawn | {name: self._pick(values) for name, values in self._phrases["slots"].items()}


def _sentences(text: str) -> list[str]:
    return text.replace("? ", "?|").replace(". ", ".|").split("|")


def joined(parts: list[str]) -> str:
    """The parts as one text; after the comma of a greeting a sentence goes on in lower case, "I" apart."""
    text = parts[0]
    for part in parts[1:]:
        goes_on = text.endswith(",") and not part.startswith(("I ", "{"))
        text += " " + (part[0].lower() + part[1:] if goes_on else part)
    return text


def preference(writer: Writer, message: Message, other: Message) -> Row:
    """A pair of replies; which is chosen, a Bradley-Terry coin decides: P(a over b) = sigmoid(gold(a) - gold(b))."""
    first = second = writer.reply(message)
    while second == first:
        flawed = writer.random.random() < FLAWED
        second = writer.flawed(first, message, other) if flawed else writer.reply(message)
    points = gold([message.prompt] * 2, [first, second])
    if writer.random.random() >= 1.0 / (1.0 + math.exp(points[1] - points[0])):
        first, second = second, first
    return {"prompt": message.prompt, "chosen": f" {first}", "rejected": f" {second}"}


def make(folder: Path) -> list[Path]:
    """Writes all files and returns them. No held-out message stands in any other file."""
    writer = Writer(yaml.safe_load((HERE / "phrases.yaml").read_text(encoding="utf-8")), SEED)
    unseen = _distinct(writer, ROWS["held_out"], set())
    taken = {message.prompt for message in unseen}
    sft = _distinct(writer, ROWS["sft"], taken)
    pairs = _distinct(writer, ROWS["preferences"], taken)
    prompts = _distinct(writer, ROWS["prompts"], taken)
    preferences = [preference(writer, one, pairs[i - 1]) for i, one in enumerate(pairs)]
    tables: dict[str, list[Row]] = {
        "sft": [{"prompt": one.prompt, "completion": f" {writer.reply(one)}"} for one in sft],
        "preferences": preferences,
        "preferences-hh": [{side: row["prompt"] + row[side] for side in ("chosen", "rejected")} for row in preferences],
        "prompts": [{"prompt": one.prompt} for one in prompts],
        "held_out": [{"prompt": one.prompt} for one in unseen],
    }
    folder.mkdir(parents=True, exist_ok=True)
    return [_write(folder / f"{name}.jsonl", rows) for name, rows in tables.items()]


def _distinct(writer: Writer, count: int, taken: set[str]) -> list[Message]:
    """Messages that are not among the taken ones."""
    found: dict[str, Message] = {}
    while len(found) < count:
        message = writer.message()
        if message.prompt not in taken:
            found.setdefault(message.prompt, message)
    return list(found.values())


def _write(path: Path, rows: list[Row]) -> Path:
    path.write_bytes("".join(json.dumps(row) + "\n" for row in rows).encode())
    return path


def main() -> None:
    """Writes the files beside this script, or into --out."""
    parser = argparse.ArgumentParser(description="Writes the example's data.")
    parser.add_argument("--out", type=Path, default=HERE)
    for path in make(parser.parse_args().out):
        print(path)


if __name__ == "__main__":
    main()
