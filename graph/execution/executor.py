"""The execution of graphql-core, within the limits of a response."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
from graphql import GraphQLLeafType
from graphql.pyutils import Path, gather_with_cancel
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.utils.await_maybe import await_maybe

from graph.core.payloads import EncodedJSON

# The completion of a longer list is interrupted for other tasks.
SHORT_LIST = 10


class Executor(StrawberryGraphQLCoreExecutionContext):
    """Limits the size of responses, and interrupts the completion of lists for other tasks."""

    def execute_fields(
        self, parent: Any, source: Any, path: Path | None, fields: Any, context: Any
    ) -> Any:
        """The values of an object's fields; compiled root fields are read by their statements."""
        self.context_value.response_limits.add_object(fields)
        if path is None and self.context_value.compiled is not None:
            return self._execute_root_fields(parent, source, fields, context)
        return super().execute_fields(parent, source, path, fields, context)

    async def _execute_root_fields(
        self, parent: Any, source: Any, fields: Any, context: Any
    ) -> dict[str, Any]:
        has = self.context_value.compiled.has
        resolved = {name: details for name, details in fields.items() if not has(name)}
        resolving = await_maybe(super().execute_fields(parent, source, None, resolved, context))
        compiled = [name for name in fields if has(name)]
        reading = (
            self._read_compiled(parent, source, fields[name], name, context) for name in compiled
        )
        values, *texts = await gather_with_cancel(resolving, *reading)
        values |= zip(compiled, texts, strict=True)
        return {name: values[name] for name in fields if name in values}

    async def _read_compiled(
        self, parent: Any, source: Any, details: Any, name: str, context: Any
    ) -> Any:
        path = Path(None, name, parent.name)
        try:
            text = await self.context_value.compiled.json(name)
            if text is not None:
                return self._encoded(text)
        except Exception as error:
            definition = self.schema.get_field(parent, details[0].node.name.value)
            assert definition is not None
            self.handle_field_error(error, definition.type, details, path)
            return None
        return await await_maybe(self.execute_field(parent, source, details, path, context))

    def complete_object_value(self, *arguments: Any) -> Any:
        """An object; one that is JSON already is not completed."""
        return self._encoded_value(arguments) or super().complete_object_value(*arguments)

    def complete_abstract_value(self, *arguments: Any) -> Any:
        """An object of an interface; JSON as above."""
        return self._encoded_value(arguments) or super().complete_abstract_value(*arguments)

    def complete_list_value(self, *arguments: Any) -> Any:
        """A list; JSON as above."""
        return self._encoded_value(arguments) or super().complete_list_value(*arguments)

    def _encoded_value(self, arguments: tuple[Any, ...]) -> orjson.Fragment | None:
        *_, path, result, _ = arguments
        if isinstance(result, EncodedJSON):
            return self._encoded(result.texts[path.key])
        return None

    def _encoded(self, text: bytes) -> orjson.Fragment:
        self.context_value.response_limits.add_bytes(len(text))
        return orjson.Fragment(text)

    def complete_leaf_value(  # type: ignore[override]  # it is called on the executor
        self, return_type: GraphQLLeafType, result: Any
    ) -> Any:
        """A value of a scalar or an enum."""
        self.context_value.response_limits.add_value(result)
        return super().complete_leaf_value(return_type, result)

    def complete_iterable_value(
        self, kind: Any, details: Any, info: Any, path: Any, items: Any, context: Any
    ) -> Any:
        """The items of a list, of which none is awaitable."""
        if isinstance(items, list) and (
            len(items) > SHORT_LIST or self.context_value.response_limits.is_slice_over
        ):
            # Loaders wait for all items, so that interruptions do not split their batches. The hold
            # begins now, because siblings may load something before the task begins.
            release = self.context_value.loaders.hold()
            completing = asyncio.create_task(
                self._complete_with_pauses(kind, details, info, path, items, context, release)
            )
            completing.add_done_callback(lambda _: release())
            return completing
        return super().complete_iterable_value(kind, details, info, path, items, context)

    async def _complete_with_pauses(
        self,
        kind: Any,
        details: Any,
        info: Any,
        path: Any,
        items: list[Any],
        context: Any,
        release: Callable[[], None],
    ) -> list[Any]:
        completed: list[Any] = []
        awaitable: list[int] = []
        try:
            for place, item in enumerate(items):
                await self.context_value.response_limits.pause()
                item_path = path.add_key(place, None)
                if self.complete_list_item_value(
                    item, completed, kind, details, info, item_path, context
                ):
                    awaitable.append(place)
        except BaseException:
            self.settle_in_background([completed[place] for place in awaitable])
            raise
        release()
        if awaitable:
            found = await gather_with_cancel(*(completed[place] for place in awaitable))
            for place, value in zip(awaitable, found, strict=True):
                completed[place] = value
        return completed
