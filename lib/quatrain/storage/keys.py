"""Which keys are allowed: those that mean the same in S3 and in a folder."""

from quatrain.errors import InvalidInput

MAX_KEY_BYTES = 1024
MAX_PART_BYTES = 255


def check_key(key: str) -> str:
    """Return the key if it is plain, else raise InvalidInput.

    Plain: 1 to 1024 UTF-8 bytes, parts of at most 255 bytes between single slashes, no `.` or `..` part, no control
    character or backslash, and no leading dot in the first part (a local folder keeps its own files there).
    """
    if not key:
        raise InvalidInput("an object key is empty")
    _check_characters(key)
    if key.startswith("."):
        raise InvalidInput(f"object key {key!r} starts with a dot, which stores keep for themselves")
    for part in key.split("/"):
        if part in ("", ".", ".."):
            raise InvalidInput(f"object key {key!r} is not plain: empty, `.` and `..` parts are refused")
        if len(part.encode()) > MAX_PART_BYTES:
            raise InvalidInput(f"object key {key!r} has a part over {MAX_PART_BYTES} bytes")
    return key


def check_prefix(prefix: str) -> str:
    """Return the prefix if keys can start with it, else raise InvalidInput. It may be empty or end inside a part."""
    if not prefix:
        return prefix
    _check_characters(prefix)
    *parts, last = prefix.split("/")
    if prefix.startswith(".") or last in (".", "..") or any(part in ("", ".", "..") for part in parts):
        raise InvalidInput(f"object prefix {prefix!r} is not plain: no key can start with it")
    return prefix


def check_range(start: int, length: int) -> None:
    """Raise InvalidInput for a negative range."""
    if start < 0 or length < 0:
        raise InvalidInput(f"byte range start {start} length {length} is negative")


def _check_characters(key: str) -> None:
    try:
        size = len(key.encode())
    except UnicodeEncodeError as error:
        raise InvalidInput(f"object key {key!r} is not valid Unicode") from error
    if size > MAX_KEY_BYTES:
        raise InvalidInput(f"object key {key[:60]!r}... has {size} bytes, at most {MAX_KEY_BYTES} are allowed")
    if "\\" in key or any(ord(character) < 32 or ord(character) == 127 for character in key):
        raise InvalidInput(f"object key {key!r} has a control character or a backslash")
