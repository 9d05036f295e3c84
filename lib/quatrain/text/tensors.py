"""What the names and shapes of a folder's tensors say: the head of a reward model, a value head, the embedding."""

from collections.abc import Mapping

Shape = tuple[int, ...]
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
_VALUE_HEADS = ("v_head.", "value_head.", "pretrained_model.")
_OTHER_HEADS = ("classifier.", "v_head.", "value_head.", "lm_head.", "rank_head.", "regression_layer.")
_SCORE = "score.weight"


def value_head_tensors(shapes: Mapping[str, Shape]) -> list[str]:
    """Return the tensors of a value head beside a language model, as TRL's and trlx's wrappers save it."""
    return sorted(name for name in shapes if name.startswith(_VALUE_HEADS))


def embedding_problem(shapes: Mapping[str, Shape], vocab_size: int) -> str | None:
    """Return what is wrong between the embedding and config.json's vocab_size; None if nothing is."""
    for name, shape in shapes.items():
        if name.endswith(_EMBEDDINGS) and len(shape) == 2 and shape[0] != vocab_size:
            return (
                f"config.json: vocab_size is {vocab_size}, but the tensor {name!r} has {shape[0]} rows. Set vocab_size "
                f"to {shape[0]}, or save the model again after resize_token_embeddings."
            )
    return None


def score_problem(shapes: Mapping[str, Shape]) -> str | None:
    """Return why the tensors have no head that gives one score; None if they have one."""
    shape = shapes.get(_SCORE)
    if shape is None:
        others = [name for name in shapes if name.startswith(_OTHER_HEADS) or ".classifier." in name]
        found = f"; it has {', '.join(repr(name) for name in sorted(others)[:3])}" if others else ""
        return (
            f"the weights have no tensor {_SCORE!r}, the head of a reward model{found}. Save it by a decoder-only "
            "class ...ForSequenceClassification of transformers with num_labels=1, or train one here: reward.data"
        )
    if len(shape) != 2 or shape[0] != 1:
        labels = shape[0] if shape else 0
        return (
            f"its head {_SCORE!r} gives {labels} labels, where a reward is one number. Use a model that was trained "
            "with num_labels=1; of two labels keep the difference of the rows (score.weight[1:] - score.weight[:1])"
        )
    if "score.bias" in shapes:
        return (
            "its head has a bias ('score.bias'), which transformers drops without a word. Remove the tensor and write "
            'its value with the sign changed into quatrain.json beside the weights: {"offset": -BIAS}'
        )
    return None
