"""`up`, `down` and `status`: the local stack. Its package is imported only here, inside the commands."""

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from quatrain.cli.output import Format, Output, document, hint, print_data, print_names, print_table
from quatrain.cli.tables import Column
from quatrain.errors import InvalidInput
from quatrain.local.home import read_endpoint, state_folder


@dataclass(frozen=True)
class _Row:
    """A process as `status` prints it: these names and this order are its JSON."""

    name: str
    pid: int
    port: int
    restarts: int
    memory_bytes: int
    log: str
    state: str


STATUS_COLUMNS = (
    "NAME",
    "STATE",
    Column("PID", 4),
    "PORT",
    Column("RESTARTS", 3),
    Column("MEMORY", 2),
    Column("LOG", 1, least=12),
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(up)
    app.command()(down)
    app.command()(status)


def up(
    mode: Annotated[
        str,
        typer.Option(envvar="MODE", help="process, compose, or auto: compose when its images exist."),
    ] = "auto",
    replicas: Annotated[
        list[str] | None, typer.Option("--replicas", metavar="NAME=N", help="Number of processes of a kind; repeat.")
    ] = None,
) -> None:
    """Start the local stack and wait until it serves. Starting it twice is fine.

    Example: quatrain up --replicas generation=2 --replicas rollout=2
    """
    stack = _stack()
    home = state_folder()
    if mode == "auto":
        mode, reason = stack.choose_mode(home, replicas=bool(replicas))
        hint(f"mode: {mode} ({reason}; MODE=process|compose forces)")
    wanted = dict(_replica(each) for each in replicas) if replicas else None
    code = stack.up(home, mode=mode, replicas=wanted)
    endpoint = read_endpoint(home)
    if endpoint is not None:
        print(endpoint.api)
        idle = [name for name, count in (wanted or {}).items() if count == 0]
        if idle:
            hint(f"API at {endpoint.api}, state in {home}; no {' and no '.join(idle)} runs, so jobs wait")
            hint(f"`quatrain up --replicas {idle[0]}=1` starts one")
        else:
            hint(f"ready: API at {endpoint.api}, state in {home}")
        hint("next: quatrain job submit FILE  |  quatrain status  |  quatrain down")
    raise typer.Exit(code)


def down() -> None:
    """Stop the local stack. Its data stay."""
    code = _stack().down(state_folder())
    hint(f"stopped; the data stay in {state_folder()}")
    raise typer.Exit(code)


def status(output: Output = Format.table) -> None:
    """Show the processes of the local stack. Exit code 6 when none runs."""
    home = state_folder()
    processes = _stack().status(home)
    endpoint = read_endpoint(home)
    rows = [
        _Row(each.name, each.pid, each.port, each.restarts, each.memory, each.log, each.state) for each in processes
    ]
    if output is Format.name:
        print_names(row.name for row in rows)
    elif output is Format.table:
        if rows:
            shown = [_cells(row) for row in rows]
            print_table(STATUS_COLUMNS, shown)
    else:
        print_data({"home": str(home), "api": endpoint.api if endpoint else None, "processes": document(rows)}, output)
    if not rows:
        hint(f"no stack runs in {home}; start it with `quatrain up`")
        raise typer.Exit(6)


def _stack() -> Any:
    try:
        from quatrain.local import stack
    except ModuleNotFoundError as error:
        raise InvalidInput(
            f"the local stack needs the package {error.name!r}, which the client alone does not: "
            "pip install 'quatrain[local]'"
        ) from error
    return stack


def _replica(text: str) -> tuple[str, int]:
    name, equals, count = text.partition("=")
    if not equals or not count.isdecimal():
        raise InvalidInput(f"--replicas {text!r} is not of the form NAME=N, such as generation=2")
    return name, int(count)


def _cells(row: _Row) -> list[str]:
    numbers = [str(number or "-") for number in (row.pid, row.port)]
    return [row.name, row.state, *numbers, str(row.restarts), _mib(row.memory_bytes), row.log]


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB" if size else "-"
