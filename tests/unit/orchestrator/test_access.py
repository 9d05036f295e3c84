import contextvars
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from tests.unit.orchestrator.scenery import make_plan

from quatrain.errors import NotFound, PermissionRefused
from quatrain.orchestrator.api.access import ROLES, check_changeable, check_visible
from quatrain.rpc.server.access import LOCAL, Access, Principal, Role, caller, set_caller

ROOT = Path(__file__).resolve().parents[3]
PUBLIC = {"quatrain.v1.JobService", "quatrain.v1.ArtifactService"}
BETWEEN_SERVICES = {f"quatrain.v1.{name}Service" for name in ("Generation", "Reward", "Reference", "Learner")}


def services() -> dict[str, Any]:
    modules = [import_module(f"quatrain.v1.{path.stem}_pb2") for path in (ROOT / "proto/quatrain/v1").glob("*.proto")]
    return {service.full_name: service for m in modules for service in m.DESCRIPTOR.services_by_name.values()}


def test_every_method_of_the_public_services_has_a_role_and_no_other_has() -> None:
    found = services()

    assert set(found) == PUBLIC | BETWEEN_SERVICES, "decide whether the new service is public"
    assert set(ROLES) == {f"/{name}/{method.name}" for name in PUBLIC for method in found[name].methods}


def test_roles_are_ordered() -> None:
    def opened(role: Role) -> set[str]:
        return {method.rpartition("/")[2] for method, needed in ROLES.items() if role >= needed}

    assert opened(Role.VIEWER) < opened(Role.SUBMITTER) <= opened(Role.ADMIN)
    for method in ("CreateJob", "CancelJob", "DeleteJob", "Upload", "ImportModel"):
        assert method not in opened(Role.VIEWER)


def test_a_method_without_an_entry_is_closed_even_to_admins() -> None:
    access = Access(ROLES, None)

    with pytest.raises(PermissionRefused, match="open to nobody"):
        access.authorize(LOCAL, "/quatrain.v1.JobService/ReadEverything")


def test_a_role_that_is_too_low_is_told_the_one_that_is_needed() -> None:
    with pytest.raises(PermissionRefused, match=r"needs the role submitter; the token of 'bo' has the role viewer"):
        Access(ROLES, None).authorize(Principal("bo", Role.VIEWER), "/quatrain.v1.JobService/CreateJob")


@pytest.mark.parametrize(
    ("principal", "sees", "changes"),
    [
        (Principal("ana", Role.SUBMITTER), True, True),
        (Principal("eve", Role.SUBMITTER), False, False),
        (Principal("eve", Role.SUBMITTER, frozenset({"ana"})), True, False),
        (Principal("grafana", Role.VIEWER, frozenset({"*"})), True, False),
        (Principal("root", Role.ADMIN), True, True),
        (LOCAL, True, True),
    ],
)
def test_whose_jobs_a_caller_sees_and_changes(principal: Principal, sees: bool, changes: bool) -> None:
    contextvars.copy_context().run(check_as, principal, sees, changes)


def check_as(principal: Principal, sees: bool, changes: bool) -> None:
    plan = make_plan("j", owner="ana")
    set_caller(principal)
    if not sees:
        for check in (check_visible, check_changeable):
            with pytest.raises(NotFound, match="there is no job 'j'"):
                check(plan)
        return
    check_visible(plan)
    if changes:
        check_changeable(plan)
    else:
        with pytest.raises(PermissionRefused, match="belongs to 'ana'"):
            check_changeable(plan)


def test_outside_of_a_call_nobody_asks() -> None:
    nobody = caller()

    assert not nobody.may_read("")
    assert not nobody.may_read("local")
