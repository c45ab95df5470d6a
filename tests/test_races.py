"""Writers in each other's way: whatever they do at the same moment, what holds alone holds then."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from sqlalchemy import select, text

import db
from db import OnFailure, TaskStatus, access, dependencies, plans, user_changes
from tests import factories
from tests.client import Answer, Client
from tests.conftest import ADMIN, People
from tests.patience import becomes
from tests.test_dependencies import Naive, become
from tests.world import World, faults, gid, make_world, stored

ROUNDS = 10
ERRORS = "userErrors { code path message }"


@pytest.fixture
async def world(database: db.Database, http: httpx.AsyncClient, people: People) -> World:
    return await make_world(database, http, people)


async def make_tasks(world: World, *titles: str, rounds: int = ROUNDS) -> list[list[db.Task]]:
    """New tasks of the owner's project that wait for nothing: such a list for each round."""
    async with world.database.write(ADMIN) as session:
        tasks = [
            [db.Task(project_id=world.project.id, title=title) for title in titles]
            for _ in range(rounds)
        ]
        session.add_all(task for group in tasks for task in group)
    return tasks


async def at_once(client: Client, *mutations: tuple[str, dict[str, Any]]) -> list[Any]:
    """What each of these mutations answers, all sent in the same moment: codes and paths."""
    payloads = await asyncio.gather(
        *(client.change(f"{name} {{ {ERRORS} }}", **input) for name, input in mutations)
    )
    return [faults(payload) for payload in payloads]


def edge(dependent: db.Task, dependency: db.Task) -> tuple[str, dict[str, Any]]:
    """The mutation that lets one task wait for another."""
    ids = {"dependentId": gid(dependent), "dependencyId": gid(dependency)}
    return "addTaskDependency", ids


async def count(world: World, task: db.Task) -> int:
    """How many tasks a task still waits for, as it knows."""
    query = "SELECT unmet_dependency_count FROM tasks WHERE id = :id"
    (number,) = await stored(world.database, query, id=task.id)
    return int(number)


async def waiting(world: World) -> None:
    """Return when some connection waits for a lock."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    query += " AND datname = current_database()"

    async def is_waiting() -> bool:
        return await stored(world.database, query) != [0]

    await becomes(is_waiting)


async def complete(world: World, task: db.Task) -> None:
    """Complete a task as a worker's operation would, one by one with all who change its project."""
    async with world.database.write(ADMIN) as session:
        await dependencies.lock(session, task.id)
        await session.fetch(db.Task, task.id)
        await dependencies.complete(session, task.id, None)


@pytest.mark.parametrize("length", [2, 3])
async def test_of_edges_that_only_together_close_a_circle_one_is_refused(
    world: World, length: int
) -> None:
    for tasks in await make_tasks(world, *"abc"[:length], rounds=50):
        pairs = zip(tasks, [*tasks[1:], tasks[0]], strict=True)

        answers = await at_once(world.owner, *(edge(*pair) for pair in pairs))

        refused = [("CYCLE_DETECTED", "dependencyId")]
        assert sorted(answers) == [[]] * (length - 1) + [refused]
        counts = [await count(world, task) for task in tasks]
        assert sorted(counts) == [0] + [1] * (length - 1)


@pytest.mark.parametrize("name", ["createTask", "createTasks"])
async def test_of_a_task_and_an_edge_that_only_together_close_a_circle_one_is_refused(
    world: World, name: str
) -> None:
    for parent, other in await make_tasks(world, "parent", "other", rounds=2 * ROUNDS):
        below: dict[str, Any] = {"title": "below"}
        if name == "createTask":
            waiting = {"parentTaskId": gid(parent), "dependsOn": [gid(other)]} | below
            where = [("CYCLE_DETECTED", "")]
        else:
            task = {"parent": gid(parent), "dependsOn": [{"on": gid(other)}]} | below
            waiting = {"tasks": [task]}
            where = [("CYCLE_DETECTED", "tasks")]

        answers = await at_once(
            world.owner, (name, {"projectId": gid(world.project)} | waiting), edge(other, parent)
        )

        # The parent waits for what is below it, that for the other, and the other for the parent.
        refused = [answer for answer in answers if answer]
        assert len(refused) == 1
        assert refused[0] in (where, [("CYCLE_DETECTED", "dependencyId")]), refused


async def test_a_subtask_that_is_deleted_while_another_is_added_is_counted_rightly(
    world: World,
) -> None:
    for a, b in await make_tasks(world, "a", "b", rounds=2 * ROUNDS):
        await at_once(world.owner, ("updateTask", {"id": gid(b), "parentTaskId": gid(a)}))
        below = {"projectId": gid(world.project), "parentTaskId": gid(a), "title": "c"}

        answers = await at_once(world.owner, ("deleteTask", {"id": gid(b)}), ("createTask", below))

        assert answers == [[], []]
        assert await count(world, a) == 1


async def test_nobody_waits_for_a_task_that_they_may_not_edit(world: World) -> None:
    """Or else they could tell from waiting that it is there."""
    ((task,),) = await make_tasks(world, "a", rounds=1)
    edit = {"dependentId": gid(task), "dependencyId": gid(world.foreign)}

    async with world.database.write(ADMIN) as session:
        await dependencies.lock(session, task.id)
        for name, input in (
            ("addTaskDependency", edit),
            ("removeTaskDependency", edit),
            ("deleteTask", {"id": gid(task)}),
        ):
            changing = at_once(world.people.stranger, (name, input))
            ((fault, *_),) = await asyncio.wait_for(changing, 5)
            assert fault[0] == "NOT_FOUND"


async def test_of_two_tasks_that_move_below_each_other_one_stays(world: World) -> None:
    for a, b in await make_tasks(world, "a", "b"):
        answers = await at_once(
            world.owner,
            ("updateTask", {"id": gid(a), "parentTaskId": gid(b)}),
            ("updateTask", {"id": gid(b), "parentTaskId": gid(a)}),
        )

        assert sorted(answers) == [[], [("CYCLE_DETECTED", "parentTaskId")]]


async def test_an_edge_is_counted_rightly_while_its_dependency_completes(world: World) -> None:
    for a, b in await make_tasks(world, "a", "b", rounds=50):
        by_hand = ("transitionTask", {"id": gid(b), "to": "COMPLETED"})

        answers = await at_once(world.owner, edge(a, b), by_hand)

        assert answers == [[], []]
        assert await count(world, a) == 0


async def test_an_edge_is_counted_rightly_while_its_dependency_fails(world: World) -> None:
    for a, b in await make_tasks(world, "a", "b", rounds=50):
        by_hand = ("transitionTask", {"id": gid(b), "to": "FAILED"})

        answers = await at_once(world.owner, edge(a, b), by_hand)

        assert answers == [[], []]
        # Whichever was first: what fails after the edge was added skips the other one.
        assert await count(world, a) == 1
        query = "SELECT status FROM tasks WHERE id = :id"
        assert await stored(world.database, query, id=a.id) in (["SKIPPED"], ["PENDING"])


async def test_an_edge_waits_for_whoever_is_completing_its_dependency(world: World) -> None:
    ((a, b),) = await make_tasks(world, "a", "b", rounds=1)

    async with world.database.write(ADMIN) as session:
        await become(session, b.id, TaskStatus.COMPLETED)
        adding = asyncio.create_task(at_once(world.owner, edge(a, b)))
        await waiting(world)

    assert await adding == [[]]
    assert await count(world, a) == 0


async def test_two_dependencies_that_complete_at_once_are_both_counted(world: World) -> None:
    for a, b, c in await make_tasks(world, "a", "b", "c"):
        await at_once(world.owner, edge(a, b), edge(a, c))

        await asyncio.gather(complete(world, b), complete(world, c))

        assert await count(world, a) == 0


async def test_an_edge_is_counted_rightly_while_another_dependency_completes(world: World) -> None:
    for a, b, c in await make_tasks(world, "a", "b", "c"):
        await at_once(world.owner, edge(a, b))

        await asyncio.gather(at_once(world.owner, edge(a, c)), complete(world, b))

        assert await count(world, a) == 1


async def test_a_subtask_that_completes_while_another_is_added_is_counted_rightly(
    world: World,
) -> None:
    for a, b in await make_tasks(world, "a", "b"):
        await at_once(world.owner, ("updateTask", {"id": gid(b), "parentTaskId": gid(a)}))
        below = {"projectId": gid(world.project), "parentTaskId": gid(a), "title": "c"}

        await asyncio.gather(at_once(world.owner, ("createTask", below)), complete(world, b))

        assert await count(world, a) == 1


async def test_a_message_that_goes_beside_its_conversation_is_in_nobodys_way(world: World) -> None:
    """Both lock the conversation first: two who lock in different orders wait for each other."""
    for _ in range(3 * ROUNDS):
        async with world.database.write(ADMIN) as session:
            conversation = await factories.make_conversation(session, project_id=world.project.id)
            messages = await factories.make_messages(session, conversation, ["a", "b", "c"])
        going = [("deleteMessage", {"id": gid(message)}) for message in messages]
        going.insert(random.randint(0, 3), ("deleteConversation", {"id": gid(conversation)}))

        answers = await at_once(world.owner, *going)

        for (mutation, _), answer in zip(going, answers, strict=True):
            late = [[("NOT_FOUND", "id")]] if mutation == "deleteMessage" else []
            assert answer in [[], *late]
        left = "SELECT count(*) FROM messages WHERE conversation_id = :id"
        assert await stored(world.database, left, id=conversation.id) == [0]


async def test_messages_added_at_once_have_each_a_place_of_their_own(world: World) -> None:
    async def append(writer: int, number: int) -> None:
        said = [{"sender": "USER", "content": f"{writer} {number} {n}"} for n in range(3)]
        payload = await world.owner.change(
            f"appendMessages {{ {ERRORS} }}",
            conversationId=gid(world.conversation),
            messages=said,
        )
        assert payload == {"userErrors": []}

    for number in range(ROUNDS):
        await asyncio.gather(*(append(writer, number) for writer in range(5)))

    query = "SELECT sequence, content FROM messages WHERE conversation_id = :id ORDER BY sequence"
    rows = (await stored(world.database, query, id=world.conversation.id))[1:]
    assert [sequence for sequence, _ in rows] == list(range(2, 2 + 3 * 5 * ROUNDS))
    for place in range(0, len(rows), 3):
        together = [content.rsplit(" ", 1) for _, content in rows[place : place + 3]]
        assert [n for _, n in together] == ["0", "1", "2"]
        assert len({who for who, _ in together}) == 1


async def test_what_must_be_unique_is_made_once_however_many_try(world: World) -> None:
    admin, id = world.people.admin, str(db.new_id())
    for number in range(3):
        agent = {"projectId": gid(world.project), "name": f"{number}", "type": "TESTER"}
        for mutation, taken, inputs in (
            (
                "createUser",
                "username",
                [{"username": f"u{number}", "email": f"{number}@{n}"} for n in range(4)],
            ),
            ("createAgent", "name", [agent] * 4),
            ("createAiModel", "id", [{"id": f"m{number}", "provider": "Me"}] * 4),
            ("startConversation", "conversationUrl", [{"conversationUrl": f"c{number}"}] * 4),
            ("createProject", "id", [{"name": "x", "id": f"{id[:-2]}{number:02}"}] * 4),
        ):
            answers = await at_once(admin, *((mutation, input) for input in inputs))

            assert sorted(answers) == [[], *[[("ALREADY_EXISTS", taken)]] * 3], mutation


async def test_of_those_who_expect_the_same_version_one_wins(world: World) -> None:
    for number in range(1, ROUNDS + 1):
        changes = [
            ("updateProject", {"id": gid(world.project), "name": name, "expectedVersion": number})
            for name in (f"{number} a", f"{number} b")
        ]

        answers = await at_once(world.owner, *changes)

        assert sorted(answers) == [[], [("CONFLICT", "expectedVersion")]]
        winner = changes[answers.index([])][1]["name"]
        query = "SELECT name, version FROM projects WHERE id = :id"
        found = await stored(world.database, query, id=world.project.id)
        assert found == [(winner, number + 1)]


async def test_updates_without_a_version_follow_each_other_and_none_is_lost(world: World) -> None:
    changes: list[dict[str, Any]] = [{"title": "t"}, {"priority": 1}, {"type": "T"}, {"input": 1}]

    answers = await at_once(
        world.owner, *(("updateTask", {"id": gid(world.free)} | change) for change in changes)
    )

    assert answers == [[]] * 4
    query = "SELECT title, priority, type, input::text, version FROM tasks WHERE id = :id"
    assert await stored(world.database, query, id=world.free.id) == [("t", 1, "T", "1", 5)]


async def test_a_transition_happens_once(world: World) -> None:
    to = {"id": gid(world.project), "to": "PLANNING"}

    answers = await at_once(world.owner, *[("transitionProject", to)] * 5)

    assert sorted(answers) == [[], *[[("ILLEGAL_TRANSITION", "to")]] * 4]


async def test_what_is_added_to_a_project_that_goes_is_refused_in_words(world: World) -> None:
    for _ in range(ROUNDS // 4):
        async with world.database.write(ADMIN) as session:
            owner = world.people.users["owner"]
            id = gid(await factories.make_project(session, owner, "Short-lived"))

        answers = await at_once(
            world.owner,
            ("createTask", {"projectId": id, "title": "t"}),
            ("createAgent", {"projectId": id, "name": "a", "type": "T"}),
            ("startConversation", {"projectId": id, "message": {"sender": "USER", "content": "x"}}),
            ("deleteProject", {"id": id}),
            ("createTasks", {"projectId": id, "tasks": [{"title": "t"}]}),
            ("deleteProject", {"id": id}),
        )

        gone: list[list[Any]] = [[], [("NOT_FOUND", "projectId")], [("INVALID", "projectId")]]
        deleted = [answers.pop(5), answers.pop(3)]
        assert sorted(deleted) == [[], [("NOT_FOUND", "id")]]
        assert all(answer in gone for answer in answers), answers
        query = "SELECT count(*) FROM projects WHERE name = 'Short-lived'"
        assert await stored(world.database, query) == [0]


async def test_no_task_stays_assigned_to_an_agent_that_goes(world: World) -> None:
    async with world.database.write(ADMIN) as session:
        await plans.change_task(session, world.free.id, {"agent_id": world.ada.id})
        deleting = asyncio.create_task(
            at_once(world.owner, ("deleteAgent", {"id": gid(world.ada)}))
        )
        await waiting(world)

    assert await deleting == [[]]
    query = "SELECT status, agent_id FROM tasks WHERE id = :id"
    assert await stored(world.database, query, id=world.free.id) == [("PENDING", None)]


async def test_whoever_is_in_a_deadlock_is_asked_to_try_again(world: World) -> None:
    document = (
        "mutation($input: RemoveTaskDependencyInput!)"
        " { removeTaskDependency(input: $input) { userErrors { code } } }"
    )
    ids = {"dependentId": gid(world.subtask), "dependencyId": gid(world.free)}

    async with world.database.write(ADMIN) as session:
        await session.execute(text("SET LOCAL deadlock_timeout = '9s'"))
        await session.fetch(db.Task, world.free.id)
        removing = asyncio.create_task(world.owner.ask(document, input=ids))
        await waiting(world)
        # It holds the one and waits for the other; now the other way round.
        await session.fetch(db.Task, world.subtask.id)

    answer = await removing
    assert answer.code == "OVERLOADED"
    assert await stored(world.database, "SELECT count(*) FROM task_dependencies") == [1]


async def test_any_changes_at_once_leave_a_plan_without_circles_and_counted_rightly(
    world: World,
) -> None:
    chance = random.Random(7)
    names = [f"{n}" for n in range(6)]
    (tasks,) = await make_tasks(world, *names, rounds=1)
    kinds = ("add", "add", "remove", "move", "move", "delete", "assign")

    def change() -> tuple[str, dict[str, Any]]:
        a, b = chance.sample(tasks, 2)
        pair = {"dependentId": gid(a), "dependencyId": gid(b)}
        match chance.choice(kinds):
            case "add":
                return "addTaskDependency", pair | {"onFailure": chance.choice(list(OnFailure))}
            case "remove":
                return "removeTaskDependency", pair
            case "move":
                parent = gid(b) if chance.random() < 0.7 else None
                return "updateTask", {"id": gid(a), "parentTaskId": parent}
            case "delete" if chance.random() < 0.3:
                return "deleteTask", {"id": gid(a)}
        return "updateTask", {"id": gid(a), "agentId": chance.choice([None, gid(world.ada)])}

    for _ in range(ROUNDS // 2):
        found = await asyncio.gather(*(_ask(world.owner, *change()) for _ in range(8)))
        for answer in found:
            assert "errors" not in answer.body or answer.code == "OVERLOADED"
        await _check(world)
        left = await stored(world.database, "SELECT id FROM tasks")
        tasks = [task for task in tasks if task.id in left]
        if len(tasks) < 4:
            tasks += (await make_tasks(world, "new", "newer", rounds=1))[0]


async def _ask(client: Client, mutation: str, input: dict[str, Any]) -> Answer:
    kind = f"{mutation[0].upper()}{mutation[1:]}Input!"
    document = f"mutation($input: {kind}) {{ {mutation}(input: $input) {{ {ERRORS} }} }}"
    return await client.ask(document, input=input)


async def _check(world: World) -> None:
    """Hold the tasks of the database against the naive rules."""
    async with world.database.read() as session:
        tasks = (await session.scalars(select(db.Task))).all()
        edges = (await session.scalars(select(db.TaskDependency))).all()
    place = {task.id: number for number, task in enumerate(tasks)}
    naive = Naive(
        {
            place[task.id]: None if task.parent_task_id is None else place[task.parent_task_id]
            for task in tasks
        },
        {(place[edge.dependent_id], place[edge.dependency_id]): edge.on_failure for edge in edges},
        {place[task.id]: task.status for task in tasks},
    )
    assert not naive.is_circular()
    counted = {place[task.id]: task.unmet_dependency_count for task in tasks}
    assert counted == {task: naive.unmet(task) for task in naive.parents}
    assert dependencies.find_cycle(naive.parents, {by: [to] for by, to in naive.edges}) is None


# Administrators who take each other's rights away.

DEMOTIONS: list[tuple[str, dict[str, Any]]] = [
    ("updateUser", {"role": "USER"}),
    ("updateUser", {"isActive": False}),
    ("deleteUser", {}),
]
ADMINISTRATORS = "SELECT username FROM users WHERE role = 'ADMIN' AND is_active"


@pytest.mark.parametrize(("mutation", "input"), DEMOTIONS)
async def test_of_two_administrators_who_take_each_other_away_one_stays(
    world: World, http: httpx.AsyncClient, mutation: str, input: dict[str, Any]
) -> None:
    async with world.database.write(ADMIN) as session:
        await session.execute(text("UPDATE users SET is_active = false WHERE role = 'ADMIN'"))
    for number in range(50):
        pair, clients = [], []
        async with world.database.write(ADMIN) as session:
            await session.execute(text("UPDATE users SET role = 'USER'"))
            for name in (f"a{number}", f"b{number}"):
                role = db.UserRole.ADMIN
                user = await db.User.create(session, username=name, email=f"{name}@x", role=role)
                row, token = await access.issue_token(session, user, "test")
                row.last_used_at = datetime.now(UTC)  # it is not noted again while the test runs
                pair.append(user)
                clients.append(Client(http, world.database, token))

        answers = await asyncio.gather(
            *(
                _ask(client, mutation, input | {"id": gid(other)})
                for client, other in zip(clients, reversed(pair), strict=True)
            )
        )

        # The second is too late with it, or no administrator any more when they ask.
        done = [answer.body.get("data") == {mutation: {"userErrors": []}} for answer in answers]
        assert sorted(done) == [False, True], [answer.text for answer in answers]
        (left,) = await stored(world.database, ADMINISTRATORS)
        assert left == pair[done.index(True)].username


async def test_whoever_takes_an_administrator_away_waits_for_whoever_does_already(
    world: World,
) -> None:
    async with world.database.write(ADMIN) as session:
        owner = await session.fetch(db.User, world.people.users["owner"].id)
        await owner.update(session, role=db.UserRole.ADMIN)
    for mutation, input in DEMOTIONS:
        async with world.database.write(ADMIN) as session:
            admin = await session.fetch(db.User, world.people.users["admin"].id)
            await user_changes.change_user(session, admin, is_active=False)
            asked = input | {"id": gid(owner)}
            taking = asyncio.create_task(at_once(world.owner, (mutation, asked)))
            await waiting(world)

        assert await taking == [[("INVALID", next(iter(input), "id"))]]
        assert await stored(world.database, ADMINISTRATORS) == ["owner"]
        async with world.database.write(ADMIN) as session:
            admin = await session.fetch(db.User, admin.id)
            await user_changes.change_user(session, admin, is_active=True)


LOCKS = [
    ("deleteAgent", "conversations", "conversation", "agents", "ada"),
    ("deleteUser", "projects", "project", "users", "owner"),
    ("deleteUser", "projects", "project", "users", "stranger"),
    ("deleteUser", "conversations", "conversation", "users", "owner"),
    ("deleteMessage", "projects", "project", "messages", "message"),
    ("deleteConversation", "projects", "project", "conversations", "conversation"),
    ("deleteProject", "conversations", "conversation", "agents", "ada"),
]
"""What a mutation waits for, and what it has not locked then: tables and rows of the world."""


@pytest.mark.parametrize(("mutation", "first", "held", "second", "deleted"), LOCKS)
async def test_a_deletion_locks_in_the_order_of_those_who_write_beside_it(
    world: World, mutation: str, first: str, held: str, second: str, deleted: str
) -> None:
    users = world.people.users
    row = users[deleted] if deleted in users else getattr(world, deleted)
    if deleted == "stranger":
        async with world.database.write(ADMIN) as session:
            await factories.make_member(session, world.project, row)
    target = world.project if mutation == "deleteProject" else row
    free = f"SELECT count(*) FROM (SELECT FROM {second} FOR UPDATE SKIP LOCKED) free"
    async with world.database.write(ADMIN) as session:
        lock = f"SELECT FROM {first} WHERE id = :id FOR NO KEY UPDATE"
        await session.execute(text(lock), {"id": getattr(world, held).id})
        deleting = asyncio.create_task(at_once(world.people.admin, (mutation, {"id": gid(target)})))
        await waiting(world)
        all = await session.scalar(text(f"SELECT count(*) FROM {second}"))
        assert await session.scalar(text(free)) == all

    assert await deleting == [[]]


async def test_calls_get_a_price_in_turns_with_those_who_delete_their_tasks(world: World) -> None:
    async with world.database.write(ADMIN) as session:
        await factories.make_usage(session, world.project, world.model, task_id=world.free.id)
    async with world.database.write(ADMIN) as session:
        await dependencies.lock(session, world.free.id)
        pricing = asyncio.create_task(
            at_once(world.owner, ("repriceUsage", {"projectId": gid(world.project)}))
        )
        await waiting(world)
        free = "SELECT count(*) FROM (SELECT FROM usage_records FOR UPDATE SKIP LOCKED) free"
        assert await session.scalar(text(free)) == 1

    assert await pricing == [[]]


async def test_calls_for_tasks_and_deletions_of_these_lock_the_tasks_in_one_order(
    world: World,
) -> None:
    """By id, in whichever order the calls come, and although the last task is above the others."""
    async with world.database.write(ADMIN) as session:
        top = await factories.make_task(session, world.project, "Top")
        await session.execute(
            text("UPDATE tasks SET parent_task_id = :top WHERE id = :id"),
            {"top": top.id, "id": world.free.id},
        )
    records = [{"modelId": "gpt-4o", "taskId": gid(task)} for task in (top, world.free)]
    call = ("recordUsage", {"projectId": gid(world.project), "records": records})
    for mutation in (call, ("deleteTask", {"id": gid(top)})):
        async with world.database.write(ADMIN) as session:
            lock = "SELECT FROM tasks WHERE id = :id FOR {}"
            strength = "UPDATE" if mutation is call else "KEY SHARE"
            await session.execute(text(lock.format(strength)), {"id": world.free.id})
            writing = asyncio.create_task(at_once(world.owner, mutation))
            await waiting(world)
            # Whoever holds the first gets the second.
            found = await session.execute(
                text(lock.format(f"{strength} SKIP LOCKED")), {"id": top.id}
            )
            assert found.rowcount == 1  # type: ignore[attr-defined]
        assert await writing == [[]]


async def test_a_call_locks_its_project_and_its_task_before_its_attempt(world: World) -> None:
    """Whoever deletes one of them locks them in this order."""
    async with world.database.write(ADMIN) as session:
        attempt = await factories.make_claimed(session, world.ada, "Dig")
    records = [{"modelId": "gpt-4o", "attemptId": gid(attempt)}]
    rows = [
        ("projects", world.project.id),
        ("tasks", attempt.task_id),
        ("task_attempts", attempt.id),
    ]
    for place, (table, id) in enumerate(rows[:2]):
        async with world.database.write(ADMIN) as session:
            lock = "SELECT FROM {} WHERE id = :id FOR UPDATE"
            await session.execute(text(lock.format(table)), {"id": id})
            recording = asyncio.create_task(
                at_once(world.owner, ("recordUsage", {"records": records}))
            )
            await waiting(world)
            for later, key in rows[place + 1 :]:
                free = f"{lock.format(later)} SKIP LOCKED"
                found = await session.execute(text(free), {"id": key})
                assert found.rowcount == 1, (table, later)  # type: ignore[attr-defined]
        assert await recording == [[]]
