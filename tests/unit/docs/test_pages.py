import contextlib
import inspect
import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from docs.generate import stale_files
from google.protobuf import json_format
from google.protobuf.message_factory import GetMessageClass
from tests.unit.docs.pages import PAGES, ROOT, code_blocks

from quatrain import rewards
from quatrain.cli.__main__ import run
from quatrain.cli.app import app
from quatrain.config import ProcessConfig
from quatrain.jobspec import apply_overrides, load_yaml, parse_spec, resolved_document, spec_from_proto
from quatrain.v1 import artifact_pb2, job_pb2

SERVICES = {
    service.full_name: service
    for file in (job_pb2.DESCRIPTOR, artifact_pb2.DESCRIPTOR)
    for service in file.services_by_name.values()
}


def each_page(find: Callable[[str], list[str]]) -> list[Any]:
    """Parameters: what `find` finds on every page, named by the page."""
    found = [(page.name, item) for page in PAGES for item in find(page.read_text(encoding="utf-8"))]
    return [pytest.param(item, id=f"{name}-{number}") for number, (name, item) in enumerate(found)]


def relative_links(text: str) -> list[str]:
    links = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    return [link for link in links if "://" not in link and not link.startswith("#")]


def quatrain_lines(text: str) -> list[str]:
    """Command lines in code: whole lines of shell blocks, and `quatrain ...` in the text."""
    shell = "\n".join(code_blocks(text, "sh") + code_blocks(text, "console"))
    lines = re.findall(r"^(?:\$ |\w+=\$\()?(quatrain (?!up\|).*)$", shell, re.MULTILINE)
    plain = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    lines += re.findall(r"(?<!`)`(quatrain [^`]+)`", plain)
    return [re.sub(r"\)?\s+#.*$|\)$", "", line) for line in lines]


def parse_command(line: str) -> None:
    """Raises what typer raises when the line is no command that exists, or has options that do not."""
    words = [word for word in shlex.split(line)[1:] if not re.fullmatch(r"\[.*\]", word)]
    command: Any = typer.main.get_command(app)
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        assert words[0] in command.commands, f"{line}: no command {words[0]!r}"
        command = command.commands[words.pop(0)]
    if hasattr(command, "commands"):
        assert words in (["--version"], ["--help"], []), line
        return
    placeholders = [each for each in command.params if each.param_type_name == "argument"]
    required = [each.opts[0] for each in command.params if each.param_type_name == "option" and each.required]
    bare = all(word.startswith("-") for word in words)
    # `quatrain job wait` in a sentence names the command; a command line gives its arguments.
    arguments = ["X"] * len(placeholders) if bare else []
    if bare or "[OPTIONS]" in line:
        arguments += [f"{name}=1" for name in required]
    command.make_context("quatrain", [*arguments, *words])


def test_generated_parts_are_current() -> None:
    assert stale_files() == [], "run `python docs/generate.py`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_resolve(page: Path) -> None:
    for link in relative_links(page.read_text(encoding="utf-8")):
        assert (page.parent / link.partition("#")[0]).exists(), f"{page.name}: {link}"


@pytest.mark.parametrize("line", each_page(quatrain_lines))
def test_command_lines_parse(line: str) -> None:
    parse_command(line)


def test_there_are_command_lines() -> None:
    lines = [line for page in PAGES for line in quatrain_lines(page.read_text(encoding="utf-8"))]
    for verb in ("job submit", "job wait", "job watch", "checkpoint download", "data validate", "up", "down"):
        assert any(line.startswith(f"quatrain {verb}") for line in lines), verb


def test_commands_that_do_not_exist_are_noticed() -> None:
    for line in ("quatrain job stop JOB", "quatrain job submit spec.yaml --detach"):
        with pytest.raises(Exception, match=r"stop|detach"):
            parse_command(line)


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        named = set(re.findall(r"`make ([a-z-]+)", text))
        named |= set(re.findall(r"^make ([a-z-]+)", "\n".join(code_blocks(text, "sh")), re.MULTILINE))
        assert named <= targets, page.name


def specs() -> Iterator[Any]:
    for page in PAGES:
        for block in code_blocks(page.read_text(encoding="utf-8"), "yaml"):
            if "ppo:" in block and "top_p" not in block:
                yield pytest.param(block, id=page.name)


@pytest.mark.parametrize("block", list(specs()))
def test_specs_are_valid(block: str) -> None:
    parse_spec(load_yaml(block))


def test_yaml_parts_of_the_reward_page_fit_into_a_spec() -> None:
    page = (ROOT / "docs" / "reward-functions.md").read_text(encoding="utf-8")
    base = {"name": "x", "model": {"uri": "models://base"}, "ppo": {"prompts": "p.jsonl", "steps": 1}}
    blocks = code_blocks(page, "yaml")
    for block in blocks:
        parse_spec({**base, **yaml.safe_load(block)})
    shown = [yaml.safe_load(line) for line in re.findall(r"^\| `(\{path: .*?\})` \|", page, re.MULTILINE)]
    for function in shown:
        parse_spec({**base, "reward": {"functions": [function]}})
        parameters = inspect.signature(getattr(rewards, function["path"].partition(":")[2])).parameters
        assert function.get("args", {}).keys() <= parameters.keys()
    assert sorted(function["path"].partition(":")[2] for function in shown) == sorted(rewards.__all__)
    assert len(blocks) == 2


def overrides(text: str) -> list[str]:
    return re.findall(r"--set (\S+=\S+?)[`\s]", text)


@pytest.mark.parametrize("line", each_page(lambda text: [] if text.startswith("# Deployment") else overrides(text)))
def test_overrides_are_fields(line: str) -> None:
    document = {
        "name": "x",
        "model": {"uri": "models://base"},
        "reward": {"functions": [{"path": "a:b"}]},
        "ppo": {"prompts": "p.jsonl", "steps": 1},
    }
    if line != "PATH=VALUE":
        parse_spec(apply_overrides(document, [line]))


@pytest.mark.parametrize("line", overrides((ROOT / "docs/deploy.md").read_text(encoding="utf-8")))
def test_overrides_of_the_chart_are_values(line: str) -> None:
    value: Any = yaml.safe_load((ROOT / "helm/quatrain/values.yaml").read_text(encoding="utf-8"))
    for key in line.partition("=")[0].split("."):
        value = value[key]


@pytest.mark.parametrize("line", each_page(lambda text: re.findall(r"^grpcurl .*-d .*$", text, re.MULTILINE)))
def test_grpcurl_requests_fit_the_protos(line: str) -> None:
    words = shlex.split(line)
    service, _, method = words[-1].rpartition("/")
    request: Any = GetMessageClass(SERVICES[service].methods_by_name[method].input_type)()
    json_format.ParseDict(json.loads(words[words.index("-d") + 1]), request)
    if method == "CreateJob":
        parse_spec(spec_from_proto(request.spec))


@pytest.mark.parametrize("name", each_page(lambda text: re.findall(r"QUATRAIN_[A-Z]+__[A-Z_]+", text)))
def test_environment_variables_are_fields(name: str) -> None:
    section, _, key = name.removeprefix("QUATRAIN_").lower().partition("__")
    if section != "section":
        fields: Any = ProcessConfig.model_fields[section].annotation
        assert {key, key.removesuffix("_file")} & set(fields.model_fields), name


def test_derived_defaults_are_as_written() -> None:
    base = {"name": "x", "model": {"uri": "m"}, "reward": {"functions": [{"path": "a:b"}]}}
    base["ppo"] = {"prompts": "p", "steps": 1, "generation": {"ignore_eos": True}}
    loss = {"placement": "loss", "acknowledge_rescaled_beta": True}

    plain = resolved_document(parse_spec(base))
    trained = resolved_document(parse_spec({**base, "reward": {"data": "d"}}))
    in_loss = resolved_document(parse_spec({**base, "ppo": {"prompts": "p", "steps": 1, "kl": loss}}))

    assert (plain["reward"]["center"], trained["reward"]["center"]) == (False, True)
    assert plain["ppo"]["generation"]["missing_eos_penalty"] == 0.0
    assert in_loss["ppo"]["generation"]["missing_eos_penalty"] == 1.0
    assert (plain["ppo"]["kl"]["estimator"], in_loss["ppo"]["kl"]["estimator"]) == ("k1", "k2")


def test_reasons_of_failed_jobs_are_explained() -> None:
    sources = (ROOT / "orchestrator").rglob("*.py")
    found = re.findall(
        r'JobFailed\([^)]*?reason="([A-Z_]+)"', "".join(path.read_text("utf-8") for path in sources), re.S
    )
    pages = [(ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("api.md", "troubleshooting.md")]

    assert "WALL_TIME" in found
    for reason in found:
        assert all(f"`{reason}`" in page for page in pages), reason


def sessions() -> Iterator[Any]:
    """Pages with command lines whose output is shown."""
    for page in PAGES:
        if code_blocks(page.read_text(encoding="utf-8"), "console"):
            yield pytest.param(page, id=page.name)


@pytest.mark.parametrize("page", list(sessions()))
def test_shown_output_is_real(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files that a page shows (`name`: and a block) are there; every `$ quatrain ...` prints what the page says."""
    text = page.read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QUATRAIN_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("QUATRAIN_ENDPOINT", raising=False)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    for name, content in re.findall(r"^`([\w.-]+)`:\n\n```\w+\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        (tmp_path / name).write_text(content, encoding="utf-8")
    for block in code_blocks(text, "console"):
        line, _, shown = block.partition("\n")
        settings, _, command = line.removeprefix("$ ").partition("quatrain ")
        for setting in shlex.split(settings):
            monkeypatch.setenv(*setting.split("=", 1))
        with contextlib.suppress(SystemExit):
            run(shlex.split(command))
        captured = capsys.readouterr()
        printed = captured.out or captured.err
        assert printed.replace(str(tmp_path / "home"), "$QUATRAIN_HOME") == shown
