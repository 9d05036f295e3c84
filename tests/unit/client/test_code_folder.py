"""A folder of code as an object: what any client may send is read with distrust."""

import io
import zipfile

import pytest

from quatrain.code_folder import MAX_BYTES, MAX_FILES, folder_of, pack, unpack
from quatrain.digests import sha256_hex
from quatrain.errors import InvalidData


def archive(*names: str, content: bytes = b"x", compression: int = zipfile.ZIP_STORED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as written:
        for name in names:
            written.writestr(zipfile.ZipInfo(name), content, compression)
    return packed.getvalue()


def test_files_survive_whatever_their_order() -> None:
    files = {"b.py": b"1", "a/c.json": b"\x00\xff", "a/b.py": b""}

    assert unpack(pack(files)) == files
    assert pack(files) == pack(dict(reversed(files.items())))


def test_the_bytes_of_a_folder_stay_the_same_over_versions() -> None:
    """Digests of stored jobs name them."""
    assert sha256_hex(pack({"a.py": b"x = 1\n"})) == "eb232a8a712e6734c927c6e7b4b68f6b74b2421adeca126d84d239597f0c53a0"


@pytest.mark.parametrize(
    ("name", "folder"), [("r/:m:f", "r/"), ("r:m:f", ""), ("m:f", ""), ("r/m.py:f", ""), ("/:m:f", "/"), ("r/:f", "")]
)
def test_a_path_names_a_folder_by_its_slash(name: str, folder: str) -> None:
    assert folder_of(name) == folder


@pytest.mark.parametrize(
    "names",
    [
        ("../evil.py",),
        ("/etc/evil.py",),
        ("a/../../evil.py",),
        ("a/./b.py",),
        ("a//b.py",),
        ("a\\b.py",),
        ("a\nb.py",),
        ("a" * 300 + ".py",),
        ("a", "a/b.py"),
        ("..",),
    ],
)
def test_names_that_leave_the_folder_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(InvalidData):
        unpack(archive(*names))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_files_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidData, match="two files of one name"):
        unpack(archive("a.py", "a.py"))


@pytest.mark.parametrize("data", [b"", b"PK", b"def f(): pass", archive("a.py")[:-10], archive("a.py")[20:]])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidData, match="no folder of a reward function"):
        unpack(data)


def test_a_bomb_is_refused_unread() -> None:
    bomb = archive("a.py", content=bytes(MAX_BYTES + 1), compression=zipfile.ZIP_DEFLATED)

    with pytest.raises(InvalidData):
        unpack(bomb)
    with pytest.raises(InvalidData, match="packed by another program"):
        unpack(archive("a.py", compression=zipfile.ZIP_DEFLATED))
    with pytest.raises(InvalidData, match=f"more than {MAX_FILES} files"):
        unpack(archive(*(f"{number}.py" for number in range(MAX_FILES + 1))))
