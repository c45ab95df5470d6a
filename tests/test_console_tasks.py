"""The console's pages of projects and tasks, in a real browser, also over 1,000 tasks."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from playwright.async_api import Browser, Locator, Page, Request, Route, expect

import db
from db import TaskStatus
from db.boards import BY_HAND
from db.transitions import Transitions
from graph import demo
from graph.api import API
from graph.server import pages
from tests import browsers, consoles
from tests.browsers import missing
from tests.consoles import LOOKS, WIDE, Console, Relay, faults, go

browser, chromium, console = browsers.browser, browsers.chromium, consoles.console

PROJECT = "01940000-0000-7000-8000-000000000010"
LARGE = "01940000-0000-7000-8000-0000000000aa"
CREATE_PLAN = """mutation($input: CreateProjectPlanInput!) {
  createProjectPlan(input: $input) { project { id } userErrors { message path } }
}"""
FIRST_ID = 0x0194_0000_0000_7000_8000_1000_0000_0000
STAGES, PARTS, STEPS = 5, 8, 24
"""A large plan has stages of parts, and each part has steps: 1,000 tasks in all."""


def task_id(stage: int, part: int, step: int = 0) -> str:
    """The id of a task of the large plan; step 0 is the part itself."""
    return str(UUID(int=FIRST_ID + stage * 10000 + part * 100 + step))


def large_plan() -> dict[str, Any]:
    """A plan of 1,000 tasks: the steps of a part follow each other in threes."""
    tasks: list[dict[str, Any]] = []
    for stage in range(STAGES):
        for part in range(PARTS):
            tasks.append(
                {
                    "id": task_id(stage, part),
                    "reference": f"{stage}.{part}",
                    "title": f"Part {part + 1} of stage {stage + 1}",
                    "dependsOn": [{"on": f"{stage - 1}.{part}"}] if stage else [],
                }
            )
            for step in range(1, STEPS + 1):
                before = range(max(1, step - 3), step) if step % 3 == 1 else ()
                tasks.append(
                    {
                        "id": task_id(stage, part, step),
                        "reference": f"{stage}.{part}.{step}",
                        "parent": f"{stage}.{part}",
                        "title": f"Step {step} of part {part + 1} in stage {stage + 1}",
                        "estimatedSeconds": 600 + 60 * part,
                        "dependsOn": [{"on": f"{stage}.{part}.{each}"} for each in before],
                    }
                )
    agents = [{"reference": "ann", "name": "Ann", "type": "DEVELOPER"}]
    return {"id": LARGE, "name": "Large plan", "tasks": tasks, "agents": agents}


async def made(console: Console, plan: dict[str, Any]) -> None:
    """Make a project with its tasks, which agents may work on."""
    answer = (await console.api.ask(CREATE_PLAN, input=plan)).data["createProjectPlan"]
    assert answer["userErrors"] == []
    start = """mutation($id: ID!) {
      transitionProject(input: {id: $id, to: IN_PROGRESS}) { userErrors { message } }
    }"""
    started = await console.api.ask(start, id=plan["id"])
    assert started.data["transitionProject"]["userErrors"] == []


async def moved(console: Console, id: str, to: str) -> None:
    """Have somebody else set the status of a task."""
    query = """mutation($id: ID!, $to: TaskStatus!) {
      transitionTask(input: {id: $id, to: $to}) { userErrors { message } }
    }"""
    answer = await console.api.ask(query, id=id, to=to)
    assert answer.data["transitionTask"]["userErrors"] == []


async def state_of(console: Console, id: str) -> Any:
    """How a task is now."""
    query = """query($id: ID!) { task(id: $id) {
      status blockedReason agent { name } cancelRequested version
    } }"""
    return (await console.api.ask(query, id=id)).data["task"]


def operations(page: Page) -> list[str]:
    """The names of the operations that a page sends from now on, without those of each page."""
    names: list[str] = []

    def note(request: Request) -> None:
        if request.method == "POST" and request.url.endswith("/graphql"):
            name = str((request.post_data_json or {})["operationName"])
            names.extend([name] if name != "Shell" else [])

    page.on("request", note)
    return names


async def not_live(page: Page) -> None:
    """Keep subscriptions from a page, so that it learns of changes only from refusals."""
    await page.route_web_socket(re.compile(""), lambda socket: None)
    await page.reload()


def box(page: Page, title: str) -> Locator:
    """The box of a task in the graph."""
    return page.locator(".canvas").get_by_role("link", name=re.compile(f"^{re.escape(title)}"))


# The layout, without a browser

Evaluate = Callable[..., Any]
GIVEN = """
const given = JSON.parse(process.argv[1]);
const view = (each = {}) => ({
  collapsed: new Set(each.collapsed), open: new Set(each.open), pinned: new Set(each.pinned),
});
const layout = (graph, each) => layOut(graph, view(each));
"""


@pytest.fixture(scope="module")
def evaluate(tmp_path_factory: pytest.TempPathFactory) -> Evaluate:
    """Evaluates an expression over the console's own functions, with values."""
    esbuild = pages.HERE / "console" / "node_modules" / ".bin" / "esbuild"
    node = shutil.which("node")
    if node is None or not esbuild.exists():
        missing("Build the console (install Node.js 20 or later with npm, then `make test`).")
    folder = tmp_path_factory.mktemp("console")
    source = pages.HERE / "console" / "src"
    names = {
        "layout": "layOut, neighbour, related",
        "moves": "movesOf, TARGETS, PROJECT_MOVES, AGENT_MOVES",
    }
    for name in names:
        built = folder / f"{name}.mjs"
        command: list[Any] = [esbuild, source / f"{name}.ts", "--format=esm", f"--outfile={built}"]
        subprocess.run([*command, "--log-level=warning"], check=True)

    def run(expression: str, **values: Any) -> Any:
        imports = [
            f"import {{ {found} }} from '{folder / name}.mjs';" for name, found in names.items()
        ]
        program = f"{' '.join(imports)}{GIVEN}console.log(JSON.stringify({expression}));"
        command = [str(node), "--input-type=module", "--eval", program, json.dumps(values)]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def drawn(id: str, level: int, parent: str | None = None, **different: Any) -> dict[str, Any]:
    """A task of a graph."""
    task = {"id": id, "title": id, "status": "PENDING", "blockedReason": None, "unmet": 0}
    return {**task, "level": level, "parentId": parent, **different}


def edges(*pairs: str) -> list[dict[str, str]]:
    """Edges such as `a-b`: b waits for a."""
    return [dict(zip(("from", "to"), pair.split("-"), strict=True)) for pair in pairs]


FAMILY: dict[str, Any] = {
    "tasks": [drawn("x", 0, "plan"), drawn("y", 1, "plan"), drawn("plan", 2), drawn("z", 3)],
    "edges": edges("x-y", "plan-z"),
    "path": ["x", "y", "plan", "z"],
}


def shown(layout: Any) -> dict[str, tuple[int, int]]:
    """Where each box of a layout stands."""
    return {box["key"]: (box["x"], box["y"]) for box in layout["boxes"]}


def test_tasks_stand_in_columns_by_level(evaluate: Evaluate) -> None:
    layout = evaluate("layout(given.graph)", graph=FAMILY)
    assert shown(layout) == {"x": (16, 36), "y": (288, 36), "plan": (560, 36), "z": (832, 36)}
    assert (layout["width"], layout["height"]) == (832 + 208 + 16, 36 + 44 + 16)
    assert {(line["key"], line["kind"], line["isCritical"]) for line in layout["lines"]} == {
        ("x y", "dependency", True),
        ("plan z", "dependency", True),
        ("x plan", "subtask", False),
        ("y plan", "subtask", True),
    }
    (first,) = [line["path"] for line in layout["lines"] if line["key"] == "x y"]
    assert first == "M224 58C256 58 256 58 288 58"
    assert evaluate("layout(given.graph)", graph={"tasks": [], "edges": [], "path": []}) == {
        "boxes": [],
        "lines": [],
        "columns": [],
        "width": 0,
        "height": 0,
    }


def test_a_parent_stands_for_its_subtasks_until_one_is_looked_for(evaluate: Evaluate) -> None:
    graph = {**FAMILY, "tasks": [*FAMILY["tasks"], drawn("deep", 0, "x")]}
    layout = evaluate("layout(given.graph, {collapsed: ['plan']})", graph=graph)
    assert shown(layout) == {"plan": (16, 36), "z": (288, 36)}
    (plan, last) = layout["boxes"]
    assert [task["id"] for task in plan["hidden"]] == ["x", "y", "deep"]
    assert [plan["isParent"], last["isParent"]] == [True, False]
    assert [line["key"] for line in layout["lines"]] == ["plan z"]
    # The first column has the tasks of levels 0 and 1 too, within their parent.
    columns = [(column["from"], column["level"]) for column in layout["columns"]]
    assert columns == [(0, 2), (3, 3)]

    found = "layout(given.graph, {collapsed: ['plan', 'x'], pinned: ['y']})"
    assert set(shown(evaluate(found, graph=graph))) == {"x", "y", "plan", "z"}
    found = "layout(given.graph, {collapsed: ['plan', 'x'], pinned: ['deep']})"
    assert set(shown(evaluate(found, graph=graph))) == {"deep", "x", "y", "plan", "z"}


def test_a_full_level_shows_what_matters_and_the_rest_as_one(evaluate: Evaluate) -> None:
    tasks = [drawn(f"t{number}", 0, status="COMPLETED") for number in range(30)]
    tasks[29]["status"] = "FAILED"
    tasks.append(drawn("end", 1))
    graph = {"tasks": tasks, "edges": edges("t28-end", "t5-end"), "path": ["t28", "end"]}
    layout = evaluate("layout(given.graph)", graph=graph)
    keys = [box["key"] for box in layout["boxes"] if box["column"] == 0]
    assert len(keys) == 12
    assert {"t28", "t29"} < set(keys)
    assert keys[-1] == "rest-0"
    (rest,) = [box for box in layout["boxes"] if box["task"] is None]
    assert len(rest["hidden"]) == 19
    column = layout["columns"][0]
    assert (column["count"], column["rest"], column["isOpen"]) == (30, 19, False)
    assert {line["key"] for line in layout["lines"]} == {"t28 end", "t5 end"}

    pinned = evaluate("layout(given.graph, {pinned: ['t27']})", graph=graph)
    assert "t27" in shown(pinned)
    opened = evaluate("layout(given.graph, {open: [0]})", graph=graph)
    assert set(shown(opened)) == {task["id"] for task in tasks}
    assert opened["columns"][0]["isOpen"]
    # Of 30 boxes, each of two rows from top to bottom has 15.
    heights = {y for key, (_, y) in shown(opened).items() if key != "end"}
    assert heights == {36 + 54 * row for row in range(15)}


def test_lines_do_not_cross_where_they_need_not(evaluate: Evaluate) -> None:
    names = "abcdef"
    tasks = [drawn(name, 0) for name in names] + [drawn(name.upper(), 1) for name in names]
    pairs = [f"{name}-{names[5 - at].upper()}" for at, name in enumerate(names)]
    layout = evaluate(
        "layout(given.graph)", graph={"tasks": tasks, "edges": edges(*pairs), "path": []}
    )
    place = {key: y for key, (_, y) in shown(layout).items()}
    assert all(place[start] == place[end] for start, end in (pair.split("-") for pair in pairs))


def test_arrow_keys_follow_the_lines(evaluate: Evaluate) -> None:
    tasks = [drawn("a", 0), drawn("b", 0), drawn("c", 1), drawn("d", 1), drawn("e", 2)]
    graph = {"tasks": tasks, "edges": edges("a-c", "b-d", "a-e"), "path": []}
    moves = {
        "a right": "c",
        "c left": "a",
        "d left": "b",
        "e left": "a",  # what it waits for, although others are nearer
        "c right": "e",  # where there is no line, the nearest
        "a down": "b",
        "b up": "a",
        "a up": None,
        "a left": None,
        "gone right": "a",
    }
    step = "neighbour(layout(given.graph), ...each.split(' '))?.key ?? null"
    found = evaluate(f"given.moves.map((each) => {step})", graph=graph, moves=list(moves))
    assert dict(zip(moves, found, strict=True)) == moves
    around = "[...related(layout(given.graph), 'y')].sort()"
    graph = {**FAMILY, "tasks": [*FAMILY["tasks"], drawn("other", 0)]}
    assert evaluate(around, graph=graph) == ["plan", "x", "y", "z"]


def test_the_buttons_are_what_people_may_do_by_hand(evaluate: Evaluate) -> None:
    tasks = [{"status": status, "cancelRequested": False} for status in TaskStatus]
    targets = "movesOf(task).flatMap((move) => TARGETS[move] ?? [])"
    found = evaluate(f"given.tasks.map((task) => {targets})", tasks=tasks)
    # That a task has failed is for its agent to say.
    expected = [{*BY_HAND.allowed(status)} - {"FAILED"} for status in TaskStatus]
    assert [set(each) for each in found] == expected
    stopping = {"status": "IN_PROGRESS", "cancelRequested": True}
    assert evaluate("movesOf(given.task)", task=stopping) == []


FINAL = {"COMPLETED", "CANCELLED", "ARCHIVED", "TERMINATED"}


@pytest.mark.parametrize(
    ("table", "model"), [("PROJECT_MOVES", db.Project), ("AGENT_MOVES", db.Agent)]
)
def test_a_project_and_an_agent_are_moved_as_the_server_allows(
    evaluate: Evaluate, table: str, model: type[db.Project | db.Agent]
) -> None:
    found: dict[str, list[dict[str, Any]]] = evaluate(table)
    machine: Transitions[Any] = model.transitions
    states = {state.value: state for state in machine.table}
    assert set(found) == set(states)
    for name, moves in found.items():
        for move in moves:
            state = states[name]
            for to in move["to"]:
                machine.check(state, states[to])
                state = states[to]
            # Nobody does by one press of a key what cannot be undone.
            assert ("question" in move) == (state.value in FINAL), move


# The project


@pytest.mark.parametrize("look", LOOKS)
async def test_the_pages_of_tasks_are_accessible(
    console: Console, browser: Browser, look: dict[str, Any]
) -> None:
    await made(console, large_plan())
    titles = {
        f"/projects/{PROJECT}": "School weather station",
        f"/projects/{PROJECT}?view=board": "School weather station",
        f"/projects/{LARGE}?search=Part 3": "Large plan",
        f"/projects/{LARGE}?view=board": "Large plan",
        f"/tasks/{task_id(1, 0)}": "Part 1 of stage 2",
        "/projects/01940000-0000-7000-8000-00000000ffff": "Not found",
        "/tasks/01940000-0000-7000-8000-00000000ffff": "Not found",
    }
    async with console.opened(browser, **look) as page:
        for path, title in titles.items():
            await go(page, path)
            await expect(page.get_by_role("heading", level=1)).to_have_text(title)
            await expect(page.get_by_text("Loading …")).to_have_count(0)
            if title != "Not found":
                await expect(page.locator(".box, .card, .part").first).to_be_visible()
            assert {path: await faults(page)} == {path: []}


async def test_a_thousand_tasks_are_folded_and_found(console: Console, browser: Browser) -> None:
    await made(console, large_plan())
    async with console.opened(browser) as page:
        sent = operations(page)
        await go(page, f"/projects/{LARGE}")
        boxes = page.locator(".box")
        await expect(page.get_by_text("1,000 tasks.")).to_be_visible()
        await expect(
            page.get_by_text("Critical path: 45 tasks, estimated at 11 h 20 min.")
        ).to_be_visible()
        await expect(boxes).to_have_count(STAGES * PARTS)
        assert sorted(sent) == [
            "EditableProjects",
            *("GraphEdges", "GraphPath", "GraphTasks", "Project"),
        ]

        part = box(page, "Part 2 of stage 1")
        await part.focus()
        await page.keyboard.press("ArrowRight")
        await expect(box(page, "Part 2 of stage 2")).to_be_focused()
        await page.keyboard.press("ArrowDown")
        await expect(box(page, "Part 3 of stage 2")).to_be_focused()
        await page.keyboard.press("Space")
        # Two thirds of the steps wait for nothing: of so many at one level, 11 are shown.
        unfolded = STAGES * PARTS + STEPS // 3 - 1 + 11 + 1
        await expect(boxes).to_have_count(unfolded)
        await expect(box(page, "Part 3 of stage 2")).to_be_focused()
        await page.keyboard.press("Space")
        await expect(boxes).to_have_count(STAGES * PARTS)

        await page.get_by_label("Search tasks by title").fill("step 17 of part 6")
        await expect(page.get_by_text("5 found")).to_be_visible()
        await expect(page.locator(".match")).to_have_count(STAGES)  # the parts that contain them
        for key, number in {"Enter": 1, "n": 2, "p": 1}.items():
            await page.keyboard.press(key)
            await expect(page.get_by_text(f"{number} of 5 found")).to_be_visible()
            step = box(page, f"Step 17 of part 6 in stage {number}")
            await expect(step).to_be_focused()
            await expect(step).to_be_in_viewport()
            await expect(boxes).to_have_count(unfolded)
        assert "search=step" in page.url

        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", level=1)).to_have_text(
            "Step 17 of part 6 in stage 1"
        )
        await page.go_back()
        await expect(page.get_by_label("Search tasks by title")).to_have_value("step 17 of part 6")


async def test_a_late_frame_takes_no_focus(console: Console, browser: Browser) -> None:
    await made(console, large_plan())
    async with console.opened(browser) as page:
        later = "(call) => setTimeout(() => call(performance.now()), 600)"
        await page.add_init_script(f"window.requestAnimationFrame = {later}")
        await page.reload()
        await go(page, f"/projects/{LARGE}")
        boxes = page.locator(".box")
        await expect(boxes).to_have_count(STAGES * PARTS)
        await box(page, "Part 3 of stage 2").focus()
        await page.keyboard.press("Space")
        await expect(boxes).not_to_have_count(STAGES * PARTS)
        search = page.get_by_label("Search tasks by title")
        await search.focus()
        await page.wait_for_timeout(1_000)
        await expect(search).to_be_focused()


async def test_all_is_shown_level_by_level_and_zoomed(console: Console, browser: Browser) -> None:
    await made(console, large_plan())
    async with console.opened(browser, f"/projects/{LARGE}") as page:
        await page.get_by_role("button", name="Show all subtasks").click()
        rest = page.get_by_role("button", name=re.compile("^125 more"))
        await expect(rest).to_have_count(STAGES)
        await page.get_by_role("button", name="Show all of level 0", exact=True).click()
        await expect(rest).to_have_count(STAGES - 1)
        await expect(page.locator(".box", has_text="in stage 1")).to_have_count(PARTS * STEPS)
        await page.get_by_role("button", name="Fold of level 0", exact=True).click()
        await expect(rest).to_have_count(STAGES)
        await rest.first.click()
        await expect(rest).to_have_count(STAGES - 1)

        width = "document.querySelector('.sizer').offsetWidth"
        middle = """(() => {
          const canvas = document.querySelector(".canvas");
          return (canvas.scrollLeft + canvas.clientWidth / 2) / %s;
        })()"""
        await page.get_by_role("button", name="Larger").click()
        await page.evaluate("document.querySelector('.canvas').scrollTo(4000, 0)")
        before, seen = await page.evaluate(width), await page.evaluate(middle % width)
        await page.get_by_role("button", name="Smaller").click()
        assert await page.evaluate(width) == pytest.approx(before * 0.8, abs=1)
        assert await page.evaluate(middle % width) == pytest.approx(seen, abs=0.001)
        first = page.locator(".canvas [tabindex='0'][data-key]")
        await first.focus()
        await page.keyboard.press("+")
        assert await page.evaluate(width) == before
        await page.keyboard.press("0")
        assert await page.evaluate(width) == pytest.approx(before * 0.2, abs=1)
        await expect(page.locator(".canvas.far")).to_have_count(1)


async def test_the_graph_begins_with_all_that_can_be_read(
    console: Console, browser: Browser
) -> None:
    tasks: list[dict[str, Any]] = [
        {
            "reference": f"{at}",
            "title": f"Step {at}",
            "dependsOn": [{"on": f"{at - 1}"}] if at else [],
        }
        for at in range(20)
    ]
    await made(console, {"id": LARGE, "name": "Long plan", "tasks": tasks})
    size = "(({ scrollWidth, clientWidth }) => [scrollWidth, clientWidth])"
    space = f"{size}(document.querySelector('.canvas'))"
    async with console.opened(browser, f"/projects/{PROJECT}", viewport=WIDE) as page:
        await expect(box(page, SENSORS)).to_be_visible()
        width, shown = await page.evaluate(space)
        assert width == shown
        await expect(page.locator(".canvas.far")).to_have_count(0)
        for each in await page.locator(".box").all():
            await expect(each).to_be_in_viewport()
        # One that would be too small is shown at its normal size.
        await go(page, f"/projects/{LARGE}")
        await expect(box(page, "Step 0")).to_be_in_viewport()
        width, shown = await page.evaluate(space)
        assert width > 20 * 208 > shown
        # What is ready has another shape than what waits for other tasks.
        legend = page.get_by_role("list", name="States of the tasks")
        shapes = await legend.locator("path").evaluate_all("found => found.map(e => e.outerHTML)")
        assert (await legend.inner_text()).split() == ["Waits", "for", "tasks", "19", "Ready", "1"]
        assert len(set(shapes)) == 2


async def test_the_graph_follows_what_happens_without_being_read_again(
    console: Console, browser: Browser
) -> None:
    first, second = task_id(0, 0), task_id(0, 1)
    tasks = [
        {"id": first, "reference": "a", "title": "Dig"},
        {"id": second, "reference": "b", "title": "Build", "dependsOn": [{"on": "a"}]},
    ]
    await made(console, {"id": LARGE, "name": "Well", "tasks": tasks})
    async with console.opened(browser) as page:
        sent = operations(page)
        await go(page, f"/projects/{LARGE}")
        await expect(box(page, "Dig")).to_contain_text("Ready")
        await expect(box(page, "Build")).to_contain_text("Waits for tasks")
        await moved(console, first, "BLOCKED")
        await expect(box(page, "Dig")).to_contain_text("Held")
        await expect(page.locator(".facts")).to_contain_text("Dig: held")
        await moved(console, first, "COMPLETED")
        await expect(box(page, "Dig")).to_contain_text("Completed")
        await expect(box(page, "Build")).to_contain_text("Ready")
        await expect(page.locator(".facts")).to_contain_text("1/2")
        assert sent.count("GraphTasks") == 1
        # Only another task, or another dependency, changes the graph itself.
        create = """mutation($id: ID!, $on: ID!) {
          createTask(input: {projectId: $id, title: "Fill", dependsOn: [$on]}) {
            userErrors { message }
          }
        }"""
        await console.api.ask(create, id=LARGE, on=second)
        await expect(box(page, "Fill")).to_contain_text("Waits for tasks")
        assert sent.count("GraphTasks") == 2


async def test_the_graph_misses_nothing_if_its_subscription_begins_late(
    console: Console, browser: Browser
) -> None:
    id, relay = task_id(0, 0), Relay()
    relay.held = {"ProjectChanges"}
    plan = {"id": LARGE, "name": "Well", "tasks": [{"id": id, "title": "Dig"}]}
    await made(console, plan)
    async with console.opened(browser, f"/projects/{LARGE}", before=relay.follow) as page:
        await expect(box(page, "Dig")).to_contain_text("Ready")
        await moved(console, id, "BLOCKED")
        relay.release()
        await expect(box(page, "Dig")).to_contain_text("Held")


async def test_the_critical_path_is_that_of_now(console: Console, browser: Browser) -> None:
    id = task_id(0, 0)
    await made(console, {"id": LARGE, "name": "Well", "tasks": [{"id": id, "title": "Dig"}]})
    async with console.opened(browser, f"/projects/{LARGE}") as page:
        note = page.locator(".graph .note").first
        await expect(note).to_contain_text("Critical path: 1 task")
        estimate = """mutation($id: ID!) {
          updateTask(input: {id: $id, estimatedSeconds: 7200}) { userErrors { message } }
        }"""
        await console.api.ask(estimate, id=id)
        await expect(note).to_contain_text("estimated at 2 h")
        await moved(console, id, "CANCELLED")
        await expect(note).not_to_contain_text("estimated at")


async def test_a_graph_that_cannot_be_read_again_stays(console: Console, browser: Browser) -> None:
    relay = Relay()
    tasks = [{"id": task_id(0, 0), "title": "Dig"}]
    await made(console, {"id": LARGE, "name": "Well", "tasks": tasks})
    create = """mutation($id: ID!) {
      createTask(input: {projectId: $id, title: "Fill"}) { userErrors { message } }
    }"""

    async def refuse(route: Route) -> None:
        if "query GraphTasks" in (route.request.post_data or ""):
            errors = [{"message": "Too many.", "extensions": {"code": "RATE_LIMITED"}}]
            await route.fulfill(json={"data": None, "errors": errors})
        else:
            await route.fallback()

    async with console.opened(browser, f"/projects/{LARGE}", before=relay.follow) as page:
        await expect(box(page, "Dig")).to_be_visible()
        await page.route("**/graphql", refuse)
        await console.api.ask(create, id=LARGE)
        failure = page.get_by_role("alert")
        await expect(failure).to_contain_text("Too many.")
        await expect(box(page, "Dig")).to_be_visible()
        await page.unroute("**/graphql", refuse)
        await relay.close(1012)
        await expect(box(page, "Fill")).to_be_visible()
        await expect(failure).to_have_count(0)


async def test_the_board_follows_what_happens(console: Console, browser: Browser) -> None:
    await made(console, large_plan())
    async with console.opened(browser) as page:
        sent = operations(page)
        await go(page, f"/projects/{LARGE}?view=board")
        ready = page.get_by_role("region", name="Ready")
        await expect(ready.get_by_role("heading")).to_have_text("Ready 136")
        await expect(ready.get_by_role("listitem")).to_have_count(10)
        await expect(page.get_by_role("region", name="Waits for tasks")).to_contain_text("864")
        assert sent == ["Project", "EditableProjects"]
        await ready.get_by_role("link", name="126 more: show up to 30").click()
        await expect(ready.get_by_role("listitem")).to_have_count(30)
        await moved(console, task_id(0, 0, 1), "BLOCKED")
        blocked = page.get_by_role("region", name="Blocked")
        await expect(blocked.get_by_role("listitem")).to_contain_text("Held")
        await expect(ready.get_by_role("heading")).to_have_text("Ready 135")
        await blocked.get_by_role("link", name="Step 1 of part 1 in stage 1").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text(
            "Step 1 of part 1 in stage 1"
        )


async def test_the_board_says_that_there_are_more_columns(
    console: Console, browser: Browser
) -> None:
    await made(console, large_plan())
    async with console.opened(browser, f"/projects/{LARGE}?view=board", viewport=WIDE) as page:
        last = page.get_by_role("region", name="Cancelled or skipped").get_by_role("heading")
        await expect(last).to_be_attached()
        for heading in await page.locator(".lane h2").all():
            found = await heading.bounding_box()
            assert found is not None
            assert found["height"] < 30
        # Empty columns are as narrow as their titles.
        hint = page.get_by_text("not in sight: scroll sideways.")
        await expect(hint).to_have_text("1 column is not in sight: scroll sideways.")
        await expect(last).not_to_be_in_viewport(ratio=1)
        await expect(page.get_by_role("button", name="Columns to the left")).to_be_disabled()
        await page.get_by_role("button", name="Columns to the right").click()
        await expect(last).to_be_in_viewport(ratio=1)
        await expect(page.get_by_role("button", name="Columns to the right")).to_be_disabled()
        assert await faults(page) == []
        await page.set_viewport_size({"width": 390, "height": 844})
        await expect(hint).to_have_count(0)


async def test_a_project_is_started_and_ended(console: Console, browser: Browser) -> None:
    create = """mutation($id: ID!) {
      createProject(input: {id: $id, name: "Well"}) { userErrors { message } }
    }"""
    created = await console.api.ask(create, id=LARGE)
    assert created.data["createProject"]["userErrors"] == []
    async with console.opened(browser, f"/projects/{LARGE}") as page:
        state, dialog = page.locator(".facts .badge"), page.get_by_role("dialog")
        buttons = page.locator(".frame .actions").get_by_role("button")
        await expect(state).to_have_text("Draft")
        await expect(buttons).to_have_text(["Start", "Cancel …"])
        await buttons.first.click()
        await expect(state).to_have_text("In progress")
        await expect(buttons).to_have_text(["Pause", "Finish …", "Cancel …"])
        await buttons.nth(1).click()
        await expect(dialog).to_contain_text("cannot be resumed")
        assert await faults(page) == []
        await dialog.get_by_role("button", name="Leave it").click()
        await expect(state).to_have_text("In progress")
        await buttons.nth(1).click()
        await dialog.get_by_role("button", name="Finish").click()
        await expect(state).to_have_text("Completed")
        await expect(buttons).to_have_text(["Archive …"])
        await buttons.click()
        await dialog.get_by_role("button", name="Archive").click()
        await expect(state).to_have_text("Archived")
        await expect(buttons).to_have_count(0)


async def test_a_project_that_somebody_changed_meanwhile_stays_as_it_is(
    console: Console, browser: Browser
) -> None:
    async with console.opened(browser, f"/projects/{PROJECT}") as page:
        await not_live(page)
        pause = page.get_by_role("button", name="Pause")
        await expect(pause).to_be_visible()
        rename = """mutation($id: ID!) {
          updateProject(input: {id: $id, description: {changed: true}}) { userErrors { message } }
        }"""
        await console.api.ask(rename, id=PROJECT)
        await pause.click()
        await expect(page.get_by_role("alert")).to_be_visible()
        query = "query($id: ID!) { project(id: $id) { status } }"
        found = (await console.api.ask(query, id=PROJECT)).data["project"]
        assert found == {"status": "IN_PROGRESS"}
        # It is shown as it is now, so that one can decide anew.
        await pause.click()
        await expect(page.get_by_role("button", name="Resume")).to_be_visible()


async def test_a_project_is_paused_and_resumed(console: Console, browser: Browser) -> None:
    async with console.opened(browser, f"/projects/{PROJECT}") as page:
        await page.get_by_role("button", name="Pause").click()
        await expect(page.locator(".facts")).to_contain_text("Paused")
        await page.get_by_role("button", name="Resume").click()
        await expect(page.locator(".facts")).to_contain_text("In progress")
        await expect(page.get_by_role("button", name="Pause")).to_be_visible()


HELD_UP: dict[str, Any] = {
    "id": LARGE,
    "name": "Held up",
    "tasks": [
        {"reference": "a", "id": task_id(0, 0), "title": "Choose"},
        {
            "reference": "b",
            "id": task_id(0, 1),
            "title": "Build",
            "dependsOn": [{"on": "a", "onFailure": "HOLD"}],
        },
        {
            "reference": "c",
            "id": task_id(0, 2),
            "title": "Paint",
            "type": "PAINTER",
            "dependsOn": [{"on": "b"}],
        },
    ],
    "agents": [{"reference": "ann", "name": "Ann", "type": "DEVELOPER"}],
}


async def test_it_is_shown_what_is_stuck_and_mended_there(
    console: Console, browser: Browser
) -> None:
    await made(console, HELD_UP)
    async with console.opened(browser, f"/projects/{LARGE}") as page:
        stuck = page.locator(".facts > dl").nth(1).locator("div").nth(1)
        await expect(stuck).to_contain_text("No agent is ready or active")
        await expect(stuck).to_contain_text("3 tasks do not go on")
        agents = await console.api.ask("{ agents { nodes { id name } } }")
        (ann,) = [each["id"] for each in agents.data["agents"]["nodes"] if each["name"] == "Ann"]
        for to in ("INITIALIZING", "READY"):
            change = "transitionAgent { userErrors { message } }"
            await console.api.change(change, id=ann, to=to)
        await expect(stuck.locator("dd")).to_have_text("Nothing")
        await moved(console, task_id(0, 0), "CANCELLED")
        await expect(stuck).to_contain_text("Choose: cancelled")
        await expect(stuck).to_contain_text("2 tasks do not go on")
        await go(page, "/")
        row = page.get_by_role("row", name="Held up")
        await expect(row).to_contain_text("Choose: cancelled")

        await go(page, f"/tasks/{task_id(0, 1)}")
        why = page.locator(".panel", has_text="Why nobody works on it")
        await expect(why).to_contain_text(
            "was cancelled. Try that again, or remove the dependency."
        )
        await page.get_by_role("button", name="Remove the dependency on Choose").click()
        assert await faults(page) == []
        await page.get_by_role("button", name="Leave it").click()
        await expect(page.get_by_role("dialog")).to_have_count(0)
        await page.get_by_role("button", name="Remove the dependency on Choose").click()
        await page.get_by_role("button", name="Remove the dependency", exact=True).click()
        await expect(page.get_by_text("It can be claimed now")).to_be_visible()
        await moved(console, task_id(0, 1), "COMPLETED")
        await go(page, f"/projects/{LARGE}")
        await expect(stuck).to_contain_text("No agent takes tasks of the type PAINTER")
        await expect(stuck).to_contain_text("1 task does not go on")


async def test_of_many_reasons_why_it_is_stuck_all_are_a_link_away(
    console: Console, browser: Browser
) -> None:
    title = "Whatever it is that has to be done in the end"
    tasks = [{"reference": f"t{n}", "title": f"{title}, {n}"} for n in range(6)]
    agents = [{"reference": "ann", "name": "Ann", "type": "DEVELOPER"}]
    await made(console, {"id": LARGE, "name": "Many", "tasks": tasks, "agents": agents})
    found = await console.api.ask(
        "query($id: ID!) { tasks(where: {projectId: {eq: $id}}) { nodes { id } } }", id=LARGE
    )
    for task in found.data["tasks"]["nodes"]:
        await moved(console, task["id"], "BLOCKED")
    asked = {"projectId": LARGE, "title": f"{title}?", "content": {}}
    await console.api.change("requestApproval { userErrors { message } }", **asked)
    async with console.opened(browser, viewport=WIDE) as page:
        row = page.get_by_role("row", name="Many")
        await expect(row.get_by_text(": held")).to_have_count(3)
        await row.get_by_role("link", name="All reasons").click()
        await expect(page.locator(".facts").get_by_text(": held")).to_have_count(6)
        await expect(page.get_by_role("link", name="All reasons")).to_have_count(0)
        # What is in it may be long: both facts of this kind share a row, whatever they contain.
        tops = await page.locator(".facts > dl:nth-child(2) > div").evaluate_all(
            "found => found.map(each => each.getBoundingClientRect().top)"
        )
        assert len(tops) == 2
        assert len(set(tops)) == 1


async def test_a_project_without_tasks_names_the_first_step(
    console: Console, browser: Browser
) -> None:
    await made(console, {"id": LARGE, "name": "Nothing yet"})
    async with console.opened(browser, f"/projects/{LARGE}") as page:
        await expect(page.get_by_text("This project has no tasks yet")).to_be_visible()
        assert await faults(page) == []
        await page.get_by_role("link", name="Board").click()
        await expect(page.get_by_text("This project has no tasks yet")).to_be_visible()
        assert await faults(page) == []


# A task

SENSORS = "Choose the sensors"


async def task_named(console: Console, title: str) -> str:
    """The id of a task of the demo."""
    query = """query($title: String!, $project: ID!) {
      tasks(where: {title: {eq: $title}, projectId: {eq: $project}}) { nodes { id } }
    }"""
    answer = await console.api.ask(query, title=title, project=PROJECT)
    found = answer.data["tasks"]["nodes"]
    return str(found[0]["id"])


async def test_whatever_is_possible_is_done_by_hand(console: Console, browser: Browser) -> None:
    id = await task_named(console, SENSORS)
    async with console.opened(browser, f"/tasks/{id}") as page:
        actions = page.get_by_role("group", name="Actions")
        state = page.locator(".frame .badge")

        async def press(label: str, after: str, buttons: list[str]) -> None:
            """Press a button, and see the state and the buttons after it."""
            await actions.get_by_role("button", name=label, exact=True).click()
            await expect(state).to_have_text(after)
            await expect(actions.get_by_role("button")).to_have_text(buttons)

        open = ["Hold", "Complete", "Reassign …", "Cancel …"]
        await expect(actions.get_by_role("button")).to_have_text(open)
        await press("Hold", "Held", ["Release", "Complete", "Reassign …", "Cancel …"])
        assert (await state_of(console, id))["blockedReason"] == "MANUAL"
        await expect(page.locator(".reasons")).to_contain_text("A person holds it")
        await press("Release", "Pending", open)
        await press("Complete", "Completed", ["Reopen"])
        await press("Reopen", "Pending", open)

        await actions.get_by_role("button", name="Reassign …").click()
        dialog = page.get_by_role("dialog")
        await dialog.get_by_label("Agent").select_option("Builder (DEVELOPER)")
        assert await faults(page) == []
        await dialog.get_by_role("button", name="Reassign").click()
        await expect(state).to_have_text("Assigned")
        assert (await state_of(console, id))["agent"] == {"name": "Builder"}
        await actions.get_by_role("button", name="Reassign …").click()
        await dialog.get_by_label("Agent").select_option("Any agent that fits")
        await dialog.get_by_role("button", name="Reassign").click()
        await expect(state).to_have_text("Pending")

        await actions.get_by_role("button", name="Cancel …").click()
        await dialog.get_by_role("button", name="Leave it").click()
        await expect(state).to_have_text("Pending")
        await actions.get_by_role("button", name="Cancel …").click()
        await dialog.get_by_role("button", name="Cancel the task").click()
        await expect(state).to_have_text("Cancelled")
        await press("Try again", "Pending", open)
        await expect(page.get_by_role("list").filter(has_text="Status:")).to_have_count(9)


async def test_what_an_agent_works_on_can_only_be_cancelled(
    console: Console, browser: Browser
) -> None:
    scout = API(console.database, db.Viewer(agent_id=demo.AGENTS[0]))
    attempt = (await scout.change("claimTask", "attempt { id task { id title } }"))["attempt"]
    async with console.opened(browser, f"/tasks/{attempt['task']['id']}") as page:
        actions = page.get_by_role("group", name="Actions")
        await expect(actions.get_by_role("button")).to_have_text(["Cancel …"])
        report = {"progressPercent": 40, "statusMessage": "Reading", "checkpoint": {"page": 7}}
        beat = {"attempts": [{"attemptId": attempt["id"], **report}]}
        await scout.change("heartbeat", "attempts { leaseLost }", **beat)
        shown = page.get_by_role("article", name="Attempt 1")
        await expect(shown).to_contain_text("Reading")
        await expect(shown.get_by_role("progressbar")).to_have_js_property("value", 40)
        await shown.get_by_text("Checkpoint").click()
        await expect(shown.locator("pre")).to_have_text(re.compile('"page": 7'))
        await actions.get_by_role("button").click()
        await page.get_by_role("button", name="Cancel the task").click()
        await expect(page.get_by_text("Its agent has been asked to stop")).to_be_visible()
        await expect(actions.get_by_role("button")).to_have_count(0)
        assert (await state_of(console, attempt["task"]["id"]))["cancelRequested"] is True
        await scout.change("failTask", attemptId=attempt["id"], error={"message": "Stopped"})
        await expect(page.locator(".frame .badge")).to_have_text("Cancelled")


async def test_a_task_that_somebody_changed_meanwhile_stays_as_it_is(
    console: Console, browser: Browser
) -> None:
    id = await task_named(console, SENSORS)
    async with console.opened(browser, f"/tasks/{id}") as page:
        await not_live(page)
        complete = page.get_by_role("button", name="Complete")
        await expect(complete).to_be_visible()
        await moved(console, id, "BLOCKED")
        before = await state_of(console, id)
        await complete.click()
        await expect(page.get_by_role("alert")).to_contain_text("somebody changed this task")
        await expect(page.locator(".frame .badge")).to_have_text("Held")
        assert await state_of(console, id) == before
        await complete.click()
        await expect(page.locator(".frame .badge")).to_have_text("Completed")
        await expect(page.get_by_role("alert")).to_have_count(0)


async def test_a_refusal_of_the_server_is_shown(console: Console, browser: Browser) -> None:
    id = await task_named(console, SENSORS)
    async with console.opened(browser, f"/tasks/{id}") as page:
        await not_live(page)
        await expect(page.get_by_role("button", name="Hold")).to_be_visible()
        delete = "mutation($id: ID!) { deleteTask(input: {id: $id}) { userErrors { message } } }"
        await console.api.ask(delete, id=id)
        await page.get_by_role("button", name="Hold").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("Not found")


async def test_it_is_said_in_words_what_a_task_waits_for(
    console: Console, browser: Browser
) -> None:
    id = await task_named(console, "Order the sensors")
    async with console.opened(browser, f"/tasks/{id}") as page:
        why = page.locator(".panel", has_text="Why nobody works on it")
        await expect(why).to_contain_text(SENSORS)
        await expect(why.get_by_role("listitem")).to_contain_text("It waits for")
        await why.get_by_role("link", name=re.compile(SENSORS)).click()
        await expect(page.get_by_role("heading", level=1)).to_have_text(SENSORS)
        await expect(page.get_by_text("It can be claimed now")).to_be_visible()
        holds = page.locator(".panel", has_text="Holds up")
        await expect(holds).to_contain_text("Order the sensors")


async def test_a_task_follows_what_is_about_it(console: Console, browser: Browser) -> None:
    id = await task_named(console, SENSORS)
    async with console.opened(browser, f"/tasks/{id}") as page:
        await expect(page.get_by_text("It can be claimed now")).to_be_visible()
        pause = """mutation($id: ID!) {
          transitionProject(input: {id: $id, to: PAUSED}) { userErrors { message } }
        }"""
        await console.api.ask(pause, id=PROJECT)
        await expect(page.locator(".reasons")).to_contain_text("project")
        scout = API(console.database, db.Viewer(agent_id=demo.AGENTS[0]))
        asked = {"projectId": PROJECT, "taskId": id, "title": "Which ones?", "content": {}}
        await scout.change("requestApproval", "approvalRequest { id }", **asked)
        await expect(page.get_by_role("link", name="Which ones?").first).to_be_visible()


async def test_a_reason_that_many_tasks_are_is_said_once(
    console: Console, browser: Browser
) -> None:
    await made(console, large_plan())
    async with console.opened(browser, f"/tasks/{task_id(0, 0)}") as page:
        why = page.locator(".panel", has_text="Why nobody works on it")
        await expect(why.get_by_role("listitem")).to_have_count(1)
        await expect(why.get_by_role("link")).to_have_count(10)
        await expect(why).to_contain_text("The first 10 are shown.")
        subtasks = page.locator(".panel", has_text="Subtasks")
        await expect(subtasks.get_by_role("link")).to_have_count(20)
        await expect(subtasks).to_contain_text("and 4 more")


async def test_who_may_only_look_has_no_buttons(console: Console, browser: Browser) -> None:
    id = await task_named(console, SENSORS)
    create = """mutation { createAccessToken(input: {name: "looks", scopes: [READ]}) {
      token userErrors { message }
    } }"""
    answer = (await console.api.ask(create)).data["createAccessToken"]
    async with browsers.opened(browser, f"{console.url}/#token={answer['token']}") as page:
        await go(page, f"/tasks/{id}")
        await expect(page.get_by_role("heading", level=1)).to_have_text(SENSORS)
        await expect(page.get_by_role("group", name="Actions")).to_have_count(0)
        await go(page, f"/projects/{PROJECT}")
        await expect(page.locator(".box").first).to_be_visible()
        await expect(page.get_by_role("button", name="Pause")).to_have_count(0)
