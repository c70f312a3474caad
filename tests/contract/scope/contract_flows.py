"""The flows of the executors' contract, as an author writes them; imported by runners only."""

import asyncio

from kodo.flow import flow, lock, output
from kodo.flow._runtime.current import current


@flow
def hello(name: str) -> str:
    return f"hello {name}"


@flow
def count(n: int) -> None:
    for number in range(n):
        current().emit("log", {"number": number})


@flow
async def wait() -> None:
    current().emit("log", {"number": 0})
    await asyncio.get_running_loop().create_future()


@flow
def fail() -> None:
    raise ValueError("broken on purpose")


@flow
def stops() -> None:
    breakpoint()


@flow
def write() -> None:
    output.write("data.bin", bytes(i % 251 for i in range(100_000)))


@flow
async def ask() -> int:
    def check(answer: int) -> None:
        if answer % 2:
            raise ValueError("odd")

    return await lock("Go on?", int, check=check, default=0)
