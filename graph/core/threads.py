"""Work that takes long, in a thread, so that it does not block the event loop.

Python runs one thread at a time, and changes between them after `graph.serve.SWITCH_SECONDS`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")

# One thread: more would not be faster, and would slow down the event loop.
_thread = ThreadPoolExecutor(1, thread_name_prefix="work")


async def in_thread(work: Callable[[], Result]) -> Result:
    """The result of the work, or its exception. Cancelling does not interrupt the work."""
    return await asyncio.get_running_loop().run_in_executor(_thread, work)
