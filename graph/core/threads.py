"""Work that uses the processor for long, in a thread, so that others are answered meanwhile.

Python runs one thread at a time, and changes between them after `graph.serve.SWITCH_SECONDS`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")

# One is enough: more would not be faster, and take more from those who are answered.
_thread = ThreadPoolExecutor(1, thread_name_prefix="work")


async def in_thread(work: Callable[[], Result]) -> Result:
    """What the work returns, or raises. It is not interrupted when nobody waits for it any more."""
    return await asyncio.get_running_loop().run_in_executor(_thread, work)
