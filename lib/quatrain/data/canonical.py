"""The canonical form of records: one JSON object a line, which every kind of data is read from without any guess."""

from quatrain.data.records import PairRecord, PromptRecord, Record, SftRecord


def canonical_row(record: Record) -> dict[str, object]:
    """Return the row that reads back as this record."""
    match record:
        case SftRecord():
            return {"prompt": record.prompt, "completion": record.completion}
        case PairRecord():
            margin = {} if record.margin is None else {"margin": record.margin}
            return {"prompt": record.prompt, "chosen": record.chosen, "rejected": record.rejected, **margin}
        case PromptRecord():
            return {**record.extra, "prompt": record.prompt}
