"""Sets of instructions: a question in one column, what it is about in another, the answer in a third."""

from dataclasses import dataclass

from quatrain.data import fields
from quatrain.data.fields import BadRow
from quatrain.data.formats import turns
from quatrain.data.messages import message
from quatrain.data.records import Row


@dataclass(frozen=True)
class Instruction:
    """The columns of such a set; `context` is empty where there is none."""

    name: str
    question: str
    context: str
    answer: str

    @property
    def doc(self) -> str:
        """Return the columns in words."""
        beside = f", `{self.context}` joined to it after an empty line" if self.context else ""
        return f"`{self.question}` as a user message{beside}, `{self.answer}`; `system` as a system message"

    def prompt(self, row: Row) -> list[dict[str, str]]:
        """Return the question, and its context after an empty line, as a user message. Raises BadRow."""
        parts = [fields.text(row, self.question)]
        if not parts[0].strip():
            raise BadRow(f"{self.question} is empty")
        if self.context and row.get(self.context) not in (None, ""):
            parts.append(fields.text(row, self.context))
        return turns.fit_system([message({"role": "user", "content": "\n\n".join(parts)}, self.question)], row)


INSTRUCTIONS = (
    Instruction("alpaca", "instruction", "input", "output"),
    Instruction("dolly", "instruction", "context", "response"),
    Instruction("openorca", "question", "", "response"),
)
