"""`troupe projects`."""

from __future__ import annotations

from functools import partial

import typer

from graph.cli.database import with_api
from graph.cli.lists import AsJSON, First, OnBehalfOf, nodes
from graph.cli.output import bare_id, money, print_json, print_table

app = typer.Typer(no_args_is_help=True, help="List projects.")

PROJECTS = """query($first: Int, $after: String) {
  projects(first: $first, after: $after) {
    nodes {
      id name status cost createdAt
      owner { id username } agents { totalCount } tasks { totalCount }
    }
    pageInfo { endCursor hasNextPage }
  }
}"""


@app.command("list")
def list_projects(first: First = 50, user: OnBehalfOf = None, as_json: AsJSON = False) -> None:
    """List projects, with their agents, tasks and cost."""
    found = with_api(partial(nodes, document=PROJECTS, first=first), user=user)
    if as_json:
        print_json(found)
        return
    columns = ("ID", "NAME", "STATUS", "AGENTS", "TASKS", "COST")
    rows = [
        [
            bare_id(each["id"]),
            each["name"],
            each["status"],
            each["agents"]["totalCount"],
            each["tasks"]["totalCount"],
            money(each["cost"]),
        ]
        for each in found
    ]
    print_table(columns, rows, numbers=("AGENTS", "TASKS", "COST"))
