"""What the sandbox refuses: the error names the sandbox, the limit or the setting, and a way out."""

import pytest
from tests.unit.reward.scenery import batch, make_tokenizer, sample
from tests.unit.reward.test_sandbox import limited, run, uploaded

from quatrain.code_folder import pack
from quatrain.digests import sha256_hex
from quatrain.errors import RewardFunctionError
from quatrain.jobspec.reward_section import FunctionSource
from quatrain.reward.backends.functions import FunctionBackend
from quatrain.reward.samples import Batch
from quatrain.storage.memory import MemoryStore

CODE = """
    import json, os, multiprocessing, socket, subprocess, sys, threading, time, urllib.request
    from pathlib import Path

    def beside(completions, **kwargs):
        return json.loads((Path(__file__).parent / "answers.json").read_text())

    def elsewhere(completions, **kwargs):
        return [float(len(open("/etc/passwd").read()))]

    def judge(completions, **kwargs):
        with urllib.request.urlopen("http://127.0.0.1:9/score", timeout=2) as reply:
            return json.loads(reply.read())

    def judge_by_name(completions, **kwargs):
        socket.getaddrinfo("judge.example", 443)

    def judge_wrapped(completions, **kwargs):
        try:
            socket.create_connection(("127.0.0.1", 9))
        except OSError:
            raise ValueError("the judge is away")

    def command(completions, **kwargs):
        return [float(subprocess.run(["python3", "-c", "print(1)"]).returncode)]

    def shell(completions, **kwargs):
        return [float(os.system("true"))] if os.fork() else [0.0]

    def pool(completions, **kwargs):
        multiprocessing.Process(target=print).start()

    def secret(completions, **kwargs):
        return [float(len(os.environ["JUDGE_KEY"]))]

    def grows(completions, **kwargs):
        kept = []
        while True:
            kept.append(bytearray(2**24))

    def threads(completions, **kwargs):
        for _ in range(10_000):
            threading.Thread(target=time.sleep, args=(100,), daemon=True).start()

    def descriptors(completions, **kwargs):
        kept = [open(__file__) for _ in range(1000)]

    def large(completions, **kwargs):
        Path("large").write_bytes(bytes(65 * 2**20))

    def slow(completions, **kwargs):
        time.sleep(1000)

    def leaves(completions, **kwargs):
        sys.exit(3)

    def imports(completions, **kwargs):
        import no_such_package
"""

SANDBOX = "the sandbox of uploaded code"
REFUSED = {
    "beside": ["answers.json", "only what was uploaded is there", "`path: FOLDER/:module:function`"],
    "elsewhere": [SANDBOX, "not '/etc/passwd'", "`path: FOLDER/:module:function`"],
    "judge": [SANDBOX, "has no network", "reward.code_network=allow", "`reward.service`"],
    "judge_by_name": [SANDBOX, "has no network", "reward.code_network=allow"],
    "judge_wrapped": ["the judge is away", SANDBOX, "has no network"],
    "command": [SANDBOX, "starts no process", "`path: module:function`", "`reward.service`"],
    "shell": [SANDBOX, "starts no process"],
    "pool": [SANDBOX, "starts no process"],
    "secret": ["KeyError: 'JUDGE_KEY'", "no variables of your shell", "`args`"],
    "grows": ["the sandbox of uploaded code has 512 MiB of memory", "reward.code_memory_bytes"],
    "threads": ["at most 64 threads"],
    "descriptors": [SANDBOX, "at most 128 files at once"],
    "large": [SANDBOX, "at most 64 MiB", "log_extra"],
    "slow": ["did not return within 2 s, on sample 0 of 1", "reward.timeout bounds one call", "ppo.chunk_size"],
    "leaves": ["ended with exit code 3", "in place of ending the process"],
    "imports": ["No module named 'no_such_package'", "the operator can install", "one file is uploaded alone"],
}


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Batch:
    return batch(make_tokenizer(tmp_path_factory.mktemp("tokenizer")), sample("a", "ad$"), timeout=20.0)


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_says_that_it_is_the_sandbox_and_what_helps(one: Batch, name: str) -> None:
    async def work(backend: FunctionBackend, store: MemoryStore) -> str:
        with pytest.raises(RewardFunctionError) as caught:
            await backend.score(uploaded(store, name, CODE), limited(one, 2.0 if name == "slow" else 20.0))
        return caught.value.message

    message = run(work)

    assert f"reward function 'greedy.py:{name}'" in message
    assert "sample 0 of 1" in message
    assert [part for part in REFUSED[name] if part not in message] == [], message


def test_an_error_of_the_functions_own_blames_no_sandbox(one: Batch) -> None:
    code = """
        def wrong(completions, **kwargs):
            return {}["x"]
    """

    async def work(backend: FunctionBackend, store: MemoryStore) -> str:
        with pytest.raises(RewardFunctionError) as caught:
            await backend.score(uploaded(store, "wrong", code), one)
        return caught.value.message

    assert "sandbox" not in run(work)


STARTS = {
    "a neighbour": ("from my_words import polite", "give the folder of both"),
    "a relative import": ("from .my_words import polite", "upload the folder above it"),
    "a script": (
        "import argparse\nparser = argparse.ArgumentParser()\nparser.add_argument('--lr', required=True)\n"
        "parser.parse_args()",
        "belongs under `if __name__ == '__main__':`",
    ),
}


@pytest.mark.parametrize("what", STARTS)
def test_a_file_that_cannot_be_imported_says_why(one: Batch, what: str) -> None:
    code, part = STARTS[what]

    async def work(backend: FunctionBackend, store: MemoryStore) -> str:
        with pytest.raises(RewardFunctionError) as caught:
            await backend.score(uploaded(store, "f", code + "\ndef f(completions, **kwargs): return [0.0]"), one)
        return caught.value.message

    message = run(work)

    assert part in message
    assert "sample" not in message


FOLDER = {
    "polite.py": b"from words import listed\nfrom more.deep import bonus\n"
    b"def polite(completions, **kwargs): return [float(len(listed()) + bonus()) for _ in completions]\n",
    "words.py": b"import json\nfrom pathlib import Path\n"
    b"def listed(): return json.loads(Path('words.json').read_text())\n",
    "words.json": b'["please", "thanks"]',
    "more/deep.py": b"from pathlib import Path\n"
    b"def bonus(): return int((Path(__file__).parent / 'n.txt').read_text())\n",
    "more/n.txt": b"40",
}


def folder_source(store: MemoryStore, files: dict[str, bytes], path: str) -> FunctionSource:
    data = pack(files)
    store.put(f"data/sha256/{sha256_hex(data)}", data)
    return FunctionSource(path=path, code_digest=sha256_hex(data))


def test_a_folder_is_importable_with_its_data(one: Batch) -> None:
    async def work(backend: FunctionBackend, store: MemoryStore) -> tuple[float | None, ...]:
        return (await backend.score(folder_source(store, FOLDER, "rewards/:polite:polite"), one)).values

    assert run(work) == (42.0,)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("rewards/:nothing:polite", "has no module 'nothing'; it has polite, words"),
        ("rewards/:polite:polte", "did you mean 'polite'?"),
    ],
)
def test_a_folder_without_the_function_says_what_it_has(one: Batch, path: str, said: str) -> None:
    async def work(backend: FunctionBackend, store: MemoryStore) -> str:
        with pytest.raises(RewardFunctionError) as caught:
            await backend.score(folder_source(store, FOLDER, path), one)
        return caught.value.message

    assert said in run(work)


def test_an_upload_that_is_no_folder_is_refused_and_leaves_nothing(one: Batch) -> None:
    async def work(backend: FunctionBackend, store: MemoryStore) -> str:
        store.put(f"data/sha256/{sha256_hex(b'code')}", b"code")
        with pytest.raises(RewardFunctionError) as caught:
            await backend.score(FunctionSource(path="rewards/:m:f", code_digest=sha256_hex(b"code")), one)
        assert backend.warm == []
        return caught.value.message

    assert "is no folder of a reward function" in run(work)
