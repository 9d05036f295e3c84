"""Which files of a repository are meant: a model's, or those of a split of a data set."""

import fnmatch
import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from quatrain.errors import InvalidData, NotFound
from quatrain.text.model_folder import no_weights

_KEPT = frozenset({".json", ".txt", ".jinja", ".model"})
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
_TEMPLATES = "additional_chat_templates"
WEIGHTS = "model.safetensors"
ADAPTER = "adapter_model.safetensors"
DATA = frozenset({".jsonl", ".ndjson", ".json", ".parquet", ".csv"})
PACKED = frozenset({".gz", ".zst"})
_NO_DATA = frozenset({"dataset_infos.json", "dataset_info.json", "state.json", "config.json"})
LISTED = 8


def choose_model(uri: str, names: Iterable[str]) -> list[str]:
    """Return the weights, configuration, tokenizer and templates among a repository's files.

    Raises NotFound (empty), InvalidData (no safetensors).
    """
    found = sorted(names)
    if not found:
        raise NotFound(f"{uri}: the repository is empty")
    weights = [name for name in found if _SHARD.fullmatch(name)]
    if WEIGHTS in found:
        weights = [WEIGHTS]
    elif not weights and ADAPTER in found:
        weights = [ADAPTER]
    if not weights:
        raise no_weights(uri, found)
    texts = [name for name in found if _is_text(PurePosixPath(name))]
    return [*texts, *weights]


def _is_text(path: PurePosixPath) -> bool:
    at_place = len(path.parts) == 1 or (len(path.parts) == 2 and path.parts[0] == _TEMPLATES)
    return at_place and path.suffix in _KEPT and not path.name.startswith(".")


def choose_data(uri: str, names: Iterable[str], inside: str, split: str) -> list[str]:
    """Return the files that a path, pattern, folder or split name means, in order.

    Raises NotFound (none), InvalidData (several sets, with the list of files).
    """
    files = sorted(name for name in names if is_data(name))
    if inside in files and not split:
        return [inside]
    if any(letter in inside for letter in "*?["):
        chosen = _of_split([name for name in files if fnmatch.fnmatchcase(name, inside)], split)
    else:
        chosen = _of_folder_and_split(files, inside, split)
    if not chosen:
        what = " ".join(filter(None, (inside, split))) or "data"
        raise NotFound(f"{uri}: no file of the repository is {what!r}; it has {_list(files)}")
    if len({_series(name) for name in chosen}) > 1:
        raise InvalidData(
            f"{uri} may mean several sets: {_list(chosen)}; give one of these paths, or a pattern such as data/train-*"
        )
    return chosen


def is_data(name: str) -> bool:
    """Return whether a file may hold rows, by its name."""
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") for part in path.parts)
    return kind_of(name) in DATA and path.name not in _NO_DATA and not hidden


def kind_of(name: str) -> str:
    """Return a data file's extension, without that of a compression."""
    path = PurePosixPath(name)
    return path.with_suffix("").suffix if path.suffix in PACKED else path.suffix


def _of_folder_and_split(files: Sequence[str], inside: str, split: str) -> list[str]:
    if not inside:
        return _of_split(_of_default(files), split) if split else list(files)
    folder = [name for name in files if name.startswith(f"{inside}/")]
    if folder:
        return _of_split(folder, split)
    if split:
        return []
    parent, _, last = inside.rpartition("/")
    under = [name for name in files if not parent or name.startswith(f"{parent}/")]
    return _of_split(_of_default(under), last)


def _of_default(files: Sequence[str]) -> list[str]:
    """Return the files of the `default` configuration where there is one, else all."""
    default = [name for name in files if "default" in PurePosixPath(name).parts[:-1]]
    return default or list(files)


def _of_split(files: Sequence[str], split: str) -> list[str]:
    """Return the files with the split's name as a word of their own name, else of a folder's."""
    if not split:
        return list(files)
    word = re.compile(rf"(?:^|[-._ ]){re.escape(split)}(?:[-._ \d]|$)")
    named = [name for name in files if word.search(PurePosixPath(name).name)]
    # `train.jsonl` is the split and `train_prefs.jsonl` a set of its own, which only its whole name means.
    exact = [name for name in named if _series(name).rpartition("/")[2].partition(".")[0] == split]
    return exact or named or [name for name in files if split in PurePosixPath(name).parts[:-1]]


def _series(name: str) -> str:
    """Return the name without the number of the shard: what shards of one set share."""
    path = PurePosixPath(name)
    return f"{path.parent}/{re.sub(r'[-_.]?[0-9]+(-of-[0-9]+)?(-[0-9a-f]{8,})?(?=[.])', '', path.name)}"


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more if names else "no data file (.jsonl, .json, .parquet, .csv)"
