"""What transports call: who asks, and the responses to operations."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from graph.core.access import Deadline
from graph.core.context import Context
from graph.core.errors import Unauthenticated
from graph.execution.masking import reported
from graph.execution.pipeline import Pipeline
from graph.execution.responses import Response
from graph.execution.run import Run
from graph.execution.tokens import Tokens
from graph.limits.limits import client_of, network


class Operations(Pipeline):
    """The operations of a schema, which come over any transport."""

    async def context(self, tokens: Tokens, token: str | None, address: str | None) -> Context:
        """The context of an operation: who asks, and how the database is reached."""
        limits, viewer = self.limits, None
        refusal: Exception | None = None
        deadline = Deadline(limits.settings.max_seconds)
        try:
            if token is not None and (viewer := tokens.known(token)) is None:
                async with deadline.enforced():
                    viewer = await tokens.viewer(token)
        except Exception as error:
            refusal = error
        context = Context(tokens.database, viewer)
        context.refusal, context.deadline, context.address = refusal, deadline, address
        client = context.client = client_of(viewer, address)
        context.connections = limits.connections.of(client)
        context.guess = lambda account: limits.guesses.guess(account, network(address))
        return context

    async def stream(
        self, run: Run, tokens: Tokens, token: str | None
    ) -> AsyncGenerator[Response, None]:
        """The responses of a subscription, one for each event; a refused one is the last.

        Each event is for whom the token names then, and costs as much as the operation. Raises
        Unauthenticated when the token opens nothing any more.
        """
        async with aclosing(self.results(run)) as results:
            async for result in results:
                response = Response(result)
                if not response.is_refused:
                    try:
                        if token is not None:
                            run.context.become(await tokens.viewer(token))
                        self.limits.rates.charge(run.context.client, run.cost)
                    except Unauthenticated:
                        raise
                    except Exception as error:
                        response = Response.refusal(reported(error))
                yield response
                if response.is_refused:
                    return
