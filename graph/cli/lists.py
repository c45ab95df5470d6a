"""Lists of objects, page by page, and the options that all commands of lists have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from graph.cli.output import print_note
from graph.cli.values import whole_number

if TYPE_CHECKING:
    from graph.clients import Client

LARGEST_PAGE = 100

AsJSON = Annotated[
    bool, typer.Option("--json", help="Print JSON, with the names that the API uses.")
]
First = Annotated[
    int, typer.Option(parser=whole_number(1), metavar="N", help="How many to show at most.")
]
OnBehalfOf = Annotated[
    str | None,
    typer.Option(
        metavar="USERNAME", help="The user who does this; by default the first administrator."
    ),
]
OfProject = Annotated[
    str | None, typer.Option(metavar="PROJECT", help="The project: its id or its name.")
]


async def nodes(api: Client, document: str, first: int, **variables: Any) -> list[Any]:
    """The first nodes of the connection that a query selects by `$first` and `$after`.

    A message says if there are more.
    """
    found: list[Any] = []
    after = None
    while True:
        size = min(LARGEST_PAGE, first - len(found))
        answer = await api.read(document, first=size, after=after, **variables)
        (page,) = answer.values()
        found += page["nodes"]
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            return found
        if len(found) >= first:
            print_note(f"There are more; --first {2 * first} shows more.")
            return found
