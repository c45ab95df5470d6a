"""Rights: who may change what, for every mutation there is; and a refused one changes no row."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

import db
from db import AGENTS, ROLES, Right
from db.errors import Denied, NotFound
from db.rules import denial
from graph.core.rights import rights_of
from graph.schema import graphql_schema, schema
from tests import factories
from tests.client import Client
from tests.conftest import People
from tests.nouns import said
from tests.world import (
    FORBIDDEN,
    HELD,
    READY,
    Case,
    Fault,
    WholeWorld,
    at,
    gid,
    make_whole_world,
    snapshot,
)

MESSAGE = {"sender": "USER", "content": "Hi"}
SAID = {"type": "REQUEST", "content": {"text": "Hi"}}
CASES: dict[str, Case] = said("CASES")
RIGHTS = rights_of(schema)


@pytest.fixture
async def world(database: db.Database, http: httpx.AsyncClient, people: People) -> WholeWorld:
    return await make_whole_world(database, http, people)


IN_THE_NAME_OF_ADA = {
    "broadcast",
    "claimTask",
    "claimTasks",
    "createTask",
    "publish",
    "receiveCommunications",
    "sendCommunication",
    "subscribeAgent",
    "transitionAgent",
    "unsubscribeAgent",
}
OF_WEBHOOKS = {
    "updateWebhook",
    "deleteWebhook",
    "rotateWebhookSecret",
    "sendTestWebhook",
    "replayWebhookDelivery",
}
"""What is done to a webhook or a delivery, which only owners see: for others there is none."""
ELSEWHERE = {"changePassword", "login", "logout", "revokeAccessToken"}
"""What takes more than a right; tests/test_accounts.py."""


def test_every_mutation_is_among_the_cases() -> None:
    mutations = graphql_schema.mutation_type

    assert mutations is not None
    assert set(CASES) | ELSEWHERE == set(mutations.fields)


def allowed(who: str, mutation: str) -> bool:
    """Whether the table of rights lets somebody do to the project's rows what a mutation does."""
    right = RIGHTS[mutation]
    if who == "administrator":
        return True
    if mutation == "updateUser":  # the input names the owner
        return who == "OWNER"
    if who == "agent":
        # Only below a task that it is working on, which the input does not name.
        return right in AGENTS and mutation != "createTask"
    if who in ("nobody", "agent of another project") or right is Right.ADMINISTER:
        return False
    return right is Right.USE or (who != "stranger" and right in ROLES[db.MemberRole(who)])


def refusal(who: str, mutation: str) -> str | list[Fault]:
    """What somebody is told who may not: that they may not, or that there is nothing there."""
    if who == "nobody":
        return "UNAUTHENTICATED"
    works = RIGHTS[mutation] is Right.WORK and mutation not in IN_THE_NAME_OF_ADA
    if who in list(db.MemberRole) and mutation in OF_WEBHOOKS:
        return CASES[mutation].stranger
    if who == "stranger" or (who == "agent of another project" and works):
        return CASES[mutation].stranger
    return FORBIDDEN


@pytest.mark.parametrize(
    "who",
    [
        "nobody",
        "stranger",
        *map(str, db.MemberRole),
        "agent",
        "agent of another project",
        "administrator",
    ],
)
async def test_the_table_of_rights_holds(
    world: WholeWorld, http: httpx.AsyncClient, who: str
) -> None:
    async with world.database.write(db.Viewer(is_administrator=True)) as session:
        await factories.make_token(session, "token of Bob", world.bob)
    clients = {
        "nobody": world.people.nobody,
        "stranger": world.people.stranger,
        **{str(role): client for role, client in world.members.items()},
        "OWNER": world.owner,
        "agent": world.agent,
        "agent of another project": Client(http, world.database, "token of Bob"),
        "administrator": world.people.admin,
    }
    client = clients[who]
    for mutation, case in CASES.items():
        input = case.input(world)
        if allowed(who, mutation):
            before = await snapshot(world.database)
            payload = await client.change(f"{mutation} {{ userErrors {{ code path }} }}", **input)
            assert payload == {"userErrors": []}, mutation
            assert await snapshot(world.database) != before, mutation
            continue
        expected = refusal(who, mutation)
        if isinstance(expected, str):
            assert await world.error(client, mutation, **input) == expected, mutation
        else:
            assert await world.refused(client, mutation, **input) == expected, mutation


async def test_an_editor_makes_nobody_an_owner(world: WholeWorld) -> None:
    """Whoever a project belongs to is a member who may do everything."""
    editor = world.members[db.MemberRole.EDITOR]
    me = (await editor.ask("{ me { id } }")).data["me"]["id"]
    project = gid(world.project)
    cases: list[tuple[str, dict[str, Any]]] = [
        *(
            ("updateProject", {"id": project, "ownerId": id})
            for id in (me, gid(world.viewer), None)
        ),
        (
            "addProjectMember",
            {"projectId": project, "email": "stranger@localhost", "role": "OWNER"},
        ),
        ("updateProjectMember", {"projectId": project, "userId": me, "role": "OWNER"}),
    ]
    for mutation, input in cases:
        assert await world.error(editor, mutation, **input) == FORBIDDEN, mutation


async def test_a_tool_that_all_share_is_the_administrators(world: WholeWorld) -> None:
    async with world.database.write(db.Viewer(is_administrator=True)) as session:
        shared = gid(await factories.make_tool(session, None, "shared"))
    for client in (world.owner, world.people.stranger, world.agent):
        for mutation, input in (
            ("createTool", {"name": "New"}),
            ("updateTool", {"id": shared, "name": "Mine"}),
            ("transitionTool", {"id": shared, "to": "EVALUATING"}),
            ("deleteTool", {"id": shared}),
        ):
            assert await world.error(client, mutation, **input) == FORBIDDEN, mutation

    given = await world.owner.change(
        "attachTool { agent { tools { tool { name } } } }", agentId=gid(world.ada), toolId=shared
    )
    tools = [edge["tool"]["name"] for edge in given["agent"]["tools"]]
    assert sorted(tools) == ["search", "shared"]


async def test_an_administrator_changes_what_is_somebody_elses(world: WholeWorld) -> None:
    for mutation in (
        "addProjectMember",
        "updateProjectMember",
        "removeProjectMember",
        "updateTool",
        "attachTool",
        "sendCommunication",
        "requestApproval",
        "recordUsage",
        "editMessage",
        "updateProject",
        "createAgent",
        "createTasks",
        "addTaskDependency",
        "removeTaskDependency",
        "appendMessages",
        "startConversation",
        "updateConversation",
        "updateUser",
        "deleteMessage",
        "deleteTask",
        "deleteProject",
    ):
        before = await snapshot(world.database)

        payload = await world.people.admin.change(
            f"{mutation} {{ userErrors {{ code path }} }}", **CASES[mutation].input(world)
        )

        assert payload == {"userErrors": []}, mutation
        assert await snapshot(world.database) != before


async def test_owners_do_not_refer_to_what_they_may_not_see(world: WholeWorld) -> None:
    stranger = gid(world.people.users["stranger"])
    mine, foreign, bob = gid(world.project), gid(world.foreign), gid(world.bob)
    new = {"projectId": mine, "title": "New"}
    planned: dict[str, Any] = {"title": "New", "agent": bob, "parent": foreign}
    planned["dependsOn"] = [{"on": foreign}]
    wrong = [("INVALID", f"tasks.0.{name}") for name in ("agent", "dependsOn.0.on", "parent")]
    cases: list[tuple[str, dict[str, Any], list[Fault]]] = [
        ("updateProject", {"id": mine, "ownerId": stranger}, at("ownerId")),
        ("createTask", new | {"agentId": bob}, at("agentId")),
        ("createTask", new | {"parentTaskId": foreign}, at("parentTaskId")),
        ("createTask", new | {"dependsOn": [foreign]}, at("dependsOn.0")),
        ("createTasks", {"projectId": mine, "tasks": [planned]}, wrong),
        ("createProjectPlan", {"name": "New", "tasks": [planned]}, wrong),
        ("updateTask", {"id": gid(world.free), "agentId": bob}, at("agentId")),
        ("updateTask", {"id": gid(world.free), "parentTaskId": foreign}, at("parentTaskId")),
        (
            "addTaskDependency",
            {"dependentId": gid(world.free), "dependencyId": foreign},
            at("dependencyId"),
        ),
        (
            "addTaskDependency",
            {"dependentId": foreign, "dependencyId": gid(world.free)},
            at("dependentId"),
        ),
        ("startConversation", {"projectId": gid(world.elsewhere)}, at("projectId")),
        ("startConversation", {"projectId": mine, "agentId": bob}, at("agentId")),
        ("startConversation", {"message": MESSAGE | {"agentId": bob}}, at("message.agentId")),
        ("updateConversation", {"id": gid(world.conversation), "agentId": bob}, at("agentId")),
        (
            "appendMessages",
            {
                "conversationId": gid(world.conversation),
                "messages": [MESSAGE, MESSAGE | {"agentId": bob}],
            },
            at("messages.1.agentId"),
        ),
    ]
    rows = {name: gid(row) for name, row in world.foreign_rows.items()}

    def hidden(*names: str, under: str = "") -> tuple[dict[str, Any], list[Fault]]:
        """Ids of what is the stranger's under these names, and that they are not found."""
        return {name: rows[name] for name in names}, at(*(f"{under}{name}" for name in names))

    input, faults = hidden("replyToId", "taskId", "toAgentId")
    cases.append(("sendCommunication", {"fromAgentId": gid(world.ada)} | SAID | input, faults))
    input, faults = hidden("toolId")
    cases.append(("attachTool", {"agentId": gid(world.ada)} | input, faults))
    input, faults = hidden("agentId", "assigneeId", "conversationId", "taskId")
    for mutation in ("requestApproval", "requestFeedback", "requestClarification", "notify"):
        ask = {"projectId": mine, "title": "May I?", "content": {}}
        cases.append((mutation, ask | input, faults))
    names = ("agentId", "attemptId", "conversationId", "messageId", "taskId", "userId")
    input, faults = hidden(*names, under="records.1.")
    calls = [{"modelId": "gpt-4o"}, {"modelId": "gpt-4o"} | input]
    cases.append(("recordUsage", {"projectId": mine, "records": calls}, faults))

    for mutation, input, expected in cases:
        found = await world.refused(world.owner, mutation, **input)
        assert sorted(found) == expected, (mutation, input)


async def test_what_belongs_to_another_project_is_not_mixed_in(world: WholeWorld) -> None:
    """Not even by an administrator, who sees both."""
    rows = {name: gid(row) for name, row in world.foreign_rows.items()}
    mine = {"projectId": gid(world.project)}
    ask = mine | {"title": "May I?", "content": {}}
    call = {"modelId": "gpt-4o"}
    cases: list[tuple[str, dict[str, Any], tuple[str, ...], str]] = [
        (
            "sendCommunication",
            {"fromAgentId": gid(world.ada), "toAgentId": gid(world.ada)} | SAID,
            ("replyToId", "taskId", "toAgentId"),
            "",
        ),
        ("attachTool", {"agentId": gid(world.ada)}, ("toolId",), ""),
        ("requestApproval", ask, ("agentId", "conversationId", "taskId"), ""),
        ("notify", ask, ("agentId", "conversationId", "taskId"), ""),
        ("recordUsage", mine, ("agentId", "conversationId", "taskId"), "records.0."),
    ]
    for mutation, input, names, under in cases:
        wrong = {name: rows[name] for name in names}
        input = input | ({"records": [call | wrong]} if under else wrong)
        found = await world.refused(world.people.admin, mutation, **input)
        assert sorted(found) == [("INVALID", f"{under}{name}") for name in names], mutation


async def test_an_agent_speaks_only_in_conversations_of_its_project(world: WholeWorld) -> None:
    async with world.database.write(db.Viewer(is_administrator=True)) as session:
        other = await factories.make_project(session, world.people.users["owner"], "Other")
        agent = gid(await factories.make_agent(session, other))
    project, conversation = gid(world.project), gid(world.conversation)
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("startConversation", {"projectId": project, "agentId": agent}, "agentId"),
        (
            "startConversation",
            {"projectId": project, "message": MESSAGE | {"agentId": agent}},
            "message.agentId",
        ),
        (
            "appendMessages",
            {"conversationId": conversation, "messages": [MESSAGE | {"agentId": agent}]},
            "messages.0.agentId",
        ),
        ("updateConversation", {"id": conversation, "agentId": agent}, "agentId"),
    ]
    for mutation, input, path in cases:
        assert await world.refused(world.owner, mutation, **input) == [("INVALID", path)]
    free = await world.owner.change(
        "startConversation { conversation { agent { name } } }", agentId=agent
    )
    assert free == {"conversation": {"agent": {"name": "Ada"}}}


async def test_what_one_may_not_see_is_refused_as_what_does_not_exist(world: WholeWorld) -> None:
    seen: dict[str, Any] = {}
    unseen: dict[str, Any] = {}
    for found, id in ((unseen, gid(world.foreign)), (seen, str(db.new_id()))):
        payload = await world.owner.change(
            "updateTask { userErrors { __typename code message path } }", id=id, title="Mine"
        )
        (found["error"],) = payload["userErrors"]
        found["error"]["message"] = found["error"]["message"].rsplit(" ", 1)[0]

    assert seen == unseen
    assert seen["error"]["message"] == "There is no Task with the id"


async def test_an_agent_reads_its_project_and_nothing_else(world: WholeWorld) -> None:
    answer = await world.agent.ask(
        "{ projects { nodes { name } } agents { nodes { name } } conversations { totalCount }"
        " tasks { totalCount } users { totalCount } me { username } accessTokens { totalCount } }"
    )

    assert answer.data == {
        "projects": {"nodes": [{"name": "Moon base"}]},
        "agents": {"nodes": [{"name": "Ada"}, {"name": "Zoe"}]},
        "conversations": {"totalCount": 1},
        "tasks": {"totalCount": 3 + len(HELD) + len(READY)},
        "users": {"totalCount": 5},
        "me": None,
        "accessTokens": {"totalCount": 1},
    }


async def test_a_transaction_gives_nobody_a_row_they_may_not_edit(world: WholeWorld) -> None:
    """Whatever a mutation forgets to ask: rows come only through here."""
    agent, user = db.Viewer(agent_id=world.ada.id), world.people.users["stranger"]
    for viewer, row, refused in (
        (agent, world.project, Denied),
        (agent, world.ada, Denied),
        (agent, world.free, Denied),
        (agent, world.message, Denied),
        (agent, world.model, Denied),
        (agent, world.foreign, NotFound),
        (agent, user, NotFound),
        (db.Viewer(user.id), world.model, Denied),
        (db.Viewer(user.id), world.project, NotFound),
        (db.Viewer(user.id), world.conversation, NotFound),
        (db.Viewer(user.id), world.people.users["owner"], NotFound),
        (db.Viewer(), world.model, Denied),
        (db.Viewer(), world.foreign, NotFound),
    ):
        with pytest.raises(refused):
            async with world.database.write(viewer) as session:
                await session.fetch(type(row), row.id)


async def test_an_agent_makes_nothing_of_its_own(world: WholeWorld) -> None:
    """What would belong to nobody but an administrator would see."""
    for mutation, input in (
        ("startConversation", {}),
        ("startConversation", {"message": MESSAGE, "agentId": gid(world.ada)}),
        ("createProject", {"name": "New"}),
        ("createProjectPlan", {"name": "New"}),
    ):
        assert await world.error(world.agent, mutation, **input) == FORBIDDEN, mutation


async def test_an_agent_finds_nothing_of_another_project(world: WholeWorld) -> None:
    foreign = {"projectId": gid(world.elsewhere)}
    talk = gid(world.foreign_rows["conversationId"])
    for mutation, input, expected in (
        ("recordUsage", foreign | {"records": [{"modelId": "gpt-4o"}]}, at("projectId")),
        ("requestApproval", foreign | {"title": "?", "content": {}}, at("projectId")),
        ("startConversation", foreign, at("projectId")),
        ("appendMessages", {"conversationId": talk, "messages": [MESSAGE]}, at("conversationId")),
    ):
        assert await world.refused(world.agent, mutation, **input) == expected


async def test_a_project_without_an_owner_is_only_the_administrators(world: WholeWorld) -> None:
    async with world.database.write(db.Viewer(is_administrator=True)) as session:
        project = await factories.make_project(session, None, "Nobody's")
    input = {"id": gid(project), "name": "Mine"}

    for client in (world.owner, world.people.stranger):
        assert await world.refused(client, "updateProject", **input) == at("id")
    taken = await world.people.admin.change("updateProject { project { name } }", **input)

    assert taken["project"] == {"name": "Mine"}


@pytest.mark.parametrize("right", ["expires_at", "revoked_at"])
async def test_a_token_that_is_over_changes_nothing(
    world: WholeWorld, http: httpx.AsyncClient, right: str
) -> None:
    async with world.database.write(db.Viewer(is_administrator=True)) as session:
        user = world.people.users["owner"]
        await factories.make_token(session, "over", user, **{right: factories.START})
    before = await snapshot(world.database)

    for scheme in ("Bearer over", "bearer over", "Bearer unknown"):
        response = await http.post(
            "/graphql",
            json={"query": 'mutation { createProject(input: {name: "x"}) { __typename } }'},
            headers={"authorization": scheme},
        )

        (error,) = response.json()["errors"]
        assert error["extensions"]["code"] == "UNAUTHENTICATED"
    assert await snapshot(world.database) == before


USER = "It needs the token of a user."
ADMIN = "It needs the token of an administrator, not limited or with the scope ADMINISTER."
LIMITED = "It needs a token that is not limited or has the scope {}; yours has {}."
# The scopes of a token of the owner (None: that of the agent), a mutation, and what is missing.
MISSING: list[tuple[list[str] | None, str, str]] = [
    (["READ"], "claimTask", LIMITED.format("WORK or WRITE", "READ")),
    (["READ"], "updateTask", LIMITED.format("WRITE", "READ")),
    (["WORK", "READ"], "updateTask", LIMITED.format("WRITE", "READ, WORK")),
    (["READ"], "createUser", ADMIN),
    ([], "createUser", ADMIN),
    (None, "createUser", ADMIN),
    (None, "updateTask", USER),
    (None, "respondToApproval", USER),
]


async def test_who_may_not_use_a_mutation_is_told_what_they_need(
    world: WholeWorld, http: httpx.AsyncClient
) -> None:
    for scopes, mutation, needed in MISSING:
        client = world.agent
        if scopes is not None:
            async with world.database.write(db.Viewer(is_administrator=True)) as session:
                bearer = world.people.users["owner"]
                name = f"{mutation} {scopes}"
                await factories.make_token(session, name, bearer, scopes=scopes)
            client = Client(http, world.database, name)
        kind = f"{mutation[0].upper()}{mutation[1:]}Input!"
        query = f"mutation($input: {kind}) {{ {mutation}(input: $input) {{ __typename }} }}"
        (error,) = (await client.ask(query, input=CASES[mutation].input(world))).errors

        assert error["message"] == f"You may not use {mutation}. {needed}", scopes
        assert error["extensions"] == {"code": "FORBIDDEN"}


MEMBERS = "members of the project with the role {} have."
GIVE = " Owners of the project give roles by addProjectMember and updateProjectMember."
# A member, a mutation, the right that it needs, and who has it.
DENIED = [
    ("viewer", "respondToApproval", "ANSWER", MEMBERS.format("OWNER, EDITOR or APPROVER") + GIVE),
    (
        "viewer",
        "createTask",
        "WORK",
        MEMBERS.format("OWNER or EDITOR, and agents for their own work,") + GIVE,
    ),
    ("approver", "updateTask", "EDIT", MEMBERS.format("OWNER or EDITOR") + GIVE),
    ("editor", "deleteProject", "OWN", MEMBERS.format("OWNER") + GIVE),
]


async def test_who_lacks_a_right_is_told_which_and_who_has_it(
    world: WholeWorld, http: httpx.AsyncClient
) -> None:
    for who, mutation, right, have in DENIED:
        client = Client(http, world.database, f"token of {who}")
        kind = f"{mutation[0].upper()}{mutation[1:]}Input!"
        query = f"mutation($input: {kind}) {{ {mutation}(input: $input) {{ __typename }} }}"
        (error,) = (await client.ask(query, input=CASES[mutation].input(world))).errors

        seen, _, rest = error["message"].partition(", but ")
        assert seen.startswith("You may see this ")
        assert rest == f"not do this to it: that needs the right {right}, which {have}"
        assert error["extensions"] == {"code": "FORBIDDEN"}


def test_what_belongs_to_no_project_is_for_others() -> None:
    needed = "that needs the right EDIT, which"
    assert denial(db.AIModel, Right.EDIT) == (
        f"You may see this AIModel, but not do this to it: {needed} administrators have."
    )
    assert denial(db.User, Right.EDIT) == (
        f"You may see this User, but not do this to it: {needed} the user and administrators have."
    )
    assert denial(db.Project, Right.ADMINISTER) == (
        "You may see this Project, but not do this to it: that needs the right ADMINISTER, which"
        " administrators have."
    )
    assert denial(db.Tool, Right.EDIT) == (
        f"You may see this Tool, but not do this to it: {needed} members of the project with the"
        f" role OWNER or EDITOR (of a shared tool, administrators) have.{GIVE}"
    )
