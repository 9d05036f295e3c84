"""Rows in the shapes of public data sets, with questions and answers of their own."""

from typing import Any

QUESTION, BETTER, WORSE = "How do I clean a copper kettle?", "Rub it with lemon and salt.", "Paint it."
USER = {"role": "user", "content": QUESTION}
SYSTEM = {"role": "system", "content": "Be brief."}


def said(text: str) -> dict[str, str]:
    """An assistant's message."""
    return {"role": "assistant", "content": text}


def sharegpt(*turns: tuple[str, str]) -> list[dict[str, str]]:
    """Turns as ShareGPT has them."""
    return [{"from": who, "value": text} for who, text in turns]


CHAT = {"chosen": [USER, said(BETTER)], "rejected": [USER, said(WORSE)]}
HUMAN = f"\n\nHuman: {QUESTION}\n\nAssistant:"
ARENA = {"model_a": "m-1", "model_b": "m-2", "turn": 1}
TEXT, MESSAGES = QUESTION, [USER]

PAIRS: list[tuple[str, dict[str, Any], Any, float | None]] = [
    (
        "orca-dpo-pairs",
        {"system": "Be brief.", "question": QUESTION, "chosen": BETTER, "rejected": WORSE},
        [SYSTEM, USER],
        None,
    ),
    ("orca-dpo-pairs", {"system": "", "input": QUESTION, "chosen": BETTER, "rejected": WORSE}, MESSAGES, None),
    (
        "ultrafeedback-binarized",
        {"prompt": QUESTION, **CHAT, "score_chosen": 8.5, "score_rejected": 3.0},
        MESSAGES,
        5.5,
    ),
    ("ultrafeedback-binarized", {"prompt": MESSAGES, **CHAT, "chosen_rating": 4, "rejected_rating": 1}, MESSAGES, 3.0),
    ("trl-standard", {"prompt": HUMAN, "chosen": f" {BETTER}", "rejected": f" {WORSE}", "response": "r"}, HUMAN, None),
    (
        "trl-standard",
        {"prompt": "Q: why?\nA:", "chosen": f"Q: why?\nA: {BETTER}", "rejected": "Q: why?\nA: no"},
        "Q: why?\nA:",
        None,
    ),
    ("trl-standard", {"prompt": QUESTION, "chosen": f"{HUMAN} {BETTER}", "rejected": f"{HUMAN} {WORSE}"}, HUMAN, None),
    (
        "trl-standard",
        {"system": "Be brief.", "prompt": QUESTION, "chosen": BETTER, "rejected": WORSE},
        f"Be brief.\n\n{QUESTION}",
        None,
    ),
    (
        "canonical",
        {
            "conversations": sharegpt(("human", QUESTION)),
            "chosen": {"from": "gpt", "value": BETTER},
            "rejected": {"from": "gpt", "value": WORSE},
        },
        MESSAGES,
        None,
    ),
    (
        "pku-saferlhf",
        {"prompt": QUESTION, "response_0": WORSE, "response_1": BETTER, "better_response_id": 1},
        TEXT,
        None,
    ),
    (
        "shp",
        {"history": QUESTION, "human_ref_A": BETTER, "human_ref_B": WORSE, "labels": 1, "score_A": 9, "score_B": 2},
        TEXT,
        None,
    ),
    (
        "shp",
        {"history": QUESTION, "human_ref_A": WORSE, "human_ref_B": BETTER, "labels": 0, "score_A": 2, "score_B": 9},
        TEXT,
        None,
    ),
    (
        "helpsteer2-preference",
        {"prompt": QUESTION, "response_1": WORSE, "response_2": BETTER, "preference_strength": 2},
        TEXT,
        2.0,
    ),
    (
        "helpsteer3",
        {"context": MESSAGES, "response1": BETTER, "response2": WORSE, "overall_preference": -3},
        MESSAGES,
        3.0,
    ),
    (
        "arena-33k",
        {**ARENA, "winner": "model_b", "conversation_a": [USER, said(WORSE)], "conversation_b": [USER, said(BETTER)]},
        MESSAGES,
        None,
    ),
    (
        "arena-55k",
        {
            **ARENA,
            "prompt": f'["{QUESTION}"]',
            "response_a": f'["{BETTER}"]',
            "response_b": f'["{WORSE}"]',
            "winner_model_a": "1",
            "winner_model_b": "0",
            "winner_tie": "0",
        },
        MESSAGES,
        None,
    ),
    (
        "webgpt-comparisons",
        {"question": {"full_text": QUESTION}, "answer_0": WORSE, "answer_1": BETTER, "score_0": -0.5, "score_1": 0.5},
        TEXT,
        1.0,
    ),
    (
        "summarize-from-feedback",
        {
            "info": {"post": QUESTION, "title": "T", "subreddit": "s"},
            "summaries": [{"text": WORSE}, {"text": BETTER}],
            "choice": 1,
        },
        f"SUBREDDIT: r/s\n\nTITLE: T\n\nPOST: {QUESTION}\n\nTL;DR:",
        None,
    ),
    ("stack-exchange-paired", {"qid": 1, "question": QUESTION, "response_j": BETTER, "response_k": WORSE}, TEXT, None),
    (
        "ultrafeedback",
        {
            "instruction": QUESTION,
            "completions": [
                {"response": WORSE, "overall_score": 2.0, "custom_system_prompt": "Be brief."},
                {"response": "Use vinegar.", "overall_score": 5.0, "custom_system_prompt": "Be long."},
                {"response": BETTER, "overall_score": 8.0, "custom_system_prompt": "Be brief."},
            ],
        },
        [SYSTEM, USER],
        6.0,
    ),
    (
        "nectar",
        {"prompt": HUMAN, "answers": [{"answer": WORSE, "rank": 7.0}, {"answer": BETTER, "rank": 1.0}]},
        HUMAN,
        6.0,
    ),
    ("labelled-pairs", {"prompt": QUESTION, "a": WORSE, "b": BETTER, "label": "B"}, TEXT, None),
    (
        "labelled-pairs",
        {"prompt": QUESTION, "answer_a": BETTER, "answer_b": WORSE, "a_score": 3, "b_score": 1},
        TEXT,
        2.0,
    ),
    ("labelled-pairs", {"prompt": QUESTION, "output_1": WORSE, "output_2": BETTER, "preference": 2}, TEXT, None),
    (
        "labelled-pairs",
        {"prompt": QUESTION, "response_a": WORSE, "response_b": BETTER, "winner": "response_b"},
        TEXT,
        None,
    ),
]

SFT: list[tuple[str, dict[str, Any], Any]] = [
    ("sharegpt", {"conversations": sharegpt(("human", QUESTION), ("gpt", BETTER))}, MESSAGES),
    (
        "sharegpt",
        {"system": "Be brief.", "conversations": sharegpt(("user", QUESTION), ("chatgpt", BETTER))},
        [SYSTEM, USER],
    ),
    (
        "alpaca",
        {"instruction": "Count.", "input": "one two", "output": BETTER},
        [{"role": "user", "content": "Count.\n\none two"}],
    ),
    ("alpaca", {"instruction": QUESTION, "input": "", "output": BETTER}, MESSAGES),
    (
        "dolly",
        {"instruction": "Count.", "context": "one two", "response": BETTER},
        [{"role": "user", "content": "Count.\n\none two"}],
    ),
    ("openorca", {"system_prompt": "Be brief.", "question": QUESTION, "response": BETTER}, [SYSTEM, USER]),
    ("capybara", {"conversation": [{"input": QUESTION, "output": BETTER}]}, MESSAGES),
    ("guanaco", {"text": f"### Human: {QUESTION}### Assistant: {BETTER}"}, MESSAGES),
    ("kto", {"prompt": MESSAGES, "completion": [said(BETTER)], "label": True}, MESSAGES),
    (
        "trl-conversational-messages",
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
                {**said(BETTER), "weight": 1},
            ]
        },
        MESSAGES,
    ),
    ("trl-conversational-messages", {"prompt": "else", "messages": [USER, said(BETTER)]}, MESSAGES),
]
