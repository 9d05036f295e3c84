from quatrain.reward.builtin import brevity


def test_shorter_completions_score_higher() -> None:
    assert brevity([[1, 2, 3], [4]], prompts=["a", "b"]) == [-3.0, -1.0]
