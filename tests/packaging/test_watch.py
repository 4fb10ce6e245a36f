"""The fixture that watches the event loop in every test sees a blocking call of the product."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from blockbuster import BlockingError

import agentkit


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"  # trio's loop is not watched: the code that runs on it is the same


def pause_in(file: Path) -> Callable[[], None]:
    """A function that blocks, as if it stood in that file."""
    names: dict[str, Callable[[], None]] = {}
    exec(compile("import time\ndef pause():\n    time.sleep(0)\n", str(file), "exec"), names)
    return names["pause"]


async def test_a_blocking_call_of_the_product_in_the_loop_is_an_error() -> None:
    with pytest.raises(BlockingError, match=r"time\.sleep"):
        pause_in(Path(agentkit.__path__[0]) / "pause.py")()


async def test_a_blocking_call_of_a_test_is_its_own_business() -> None:
    pause_in(Path(__file__))()


@pytest.mark.blocks_the_loop("it shows that the mark is heeded")
async def test_a_test_that_blocks_on_purpose_says_so() -> None:
    pause_in(Path(agentkit.__path__[0]) / "pause.py")()


def test_a_blocking_call_outside_of_a_loop_is_fine() -> None:
    pause_in(Path(agentkit.__path__[0]) / "pause.py")()
    time.sleep(0)
