"""Our association against aiortc's, over a pipe in memory that loses packets."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from aiortc.rtcdatachannel import RTCDataChannel, RTCDataChannelParameters
from aiortc.rtcsctptransport import RTCSctpCapabilities, RTCSctpTransport

from kodo.p2p.core.sctp import Association, ChannelClosed, Ended, Event, MessageReceived


class Pipe:
    """aiortc's association on one end, ours on the other; it has what aiortc asks of a DTLS transport."""

    state = "connected"

    def __init__(self, *, client: bool, loss: float, seed: int) -> None:
        # `client` says what we are.
        self._role = "server" if client else "client"
        self.loop = asyncio.get_running_loop()
        self.chance = random.Random(seed)
        self.loss = loss
        self.ours = Association(
            client=client,
            tag=self.chance.randrange(1, 1 << 32),
            initial_tsn=self.chance.randrange(1 << 32),
            cookie_secret=self.chance.randbytes(32),
        )
        self.receiver: Any = None
        self.timer: asyncio.TimerHandle | None = None
        self.events: list[Event] = []
        self.changed = asyncio.Event()
        self.to_them: asyncio.Queue[bytes] = asyncio.Queue()

    def _register_data_receiver(self, receiver: Any) -> None:
        self.receiver = receiver

    def _unregister_data_receiver(self, receiver: Any) -> None:
        self.receiver = None

    async def _send_data(self, data: bytes) -> None:
        if self.chance.random() >= self.loss:
            self.loop.call_soon(self.take, data)

    def take(self, data: bytes) -> None:
        self.ours.receive_datagram(data, self.loop.time())
        self.flush()

    def flush(self) -> None:
        while (event := self.ours.next_event()) is not None:
            self.events.append(event)
            if isinstance(event, MessageReceived):
                self.ours.consumed(len(event.data))
        self.changed.set()
        for packet in self.ours.datagrams_to_send(self.loop.time()):
            if self.chance.random() >= self.loss:
                self.to_them.put_nowait(packet)
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if (time := self.ours.get_timer()) is not None:
            self.timer = self.loop.call_at(time, self.fire)

    def fire(self) -> None:
        self.ours.handle_timer(self.loop.time())
        self.flush()

    async def carry(self) -> None:
        while True:
            packet = await self.to_them.get()
            if self.receiver is not None:
                await self.receiver._handle_data(packet)

    async def until(self, holds: Any) -> None:
        async with asyncio.timeout(60):
            while not holds():
                self.changed.clear()
                await self.changed.wait()

    def messages(self) -> list[bytes]:
        return [event.data for event in self.events if isinstance(event, MessageReceived)]


@pytest.mark.parametrize("client", [False, True])
@pytest.mark.parametrize("loss", [0.0, 0.02, 0.1])
async def test_messages_both_ways_and_a_close(client: bool, loss: float) -> None:
    pipe = Pipe(client=client, loss=loss, seed=5)
    theirs = RTCSctpTransport(pipe)  # type: ignore[arg-type]
    opened: list[RTCDataChannel] = []
    got: list[bytes] = []
    their_close = asyncio.Event()

    def on_channel(channel: RTCDataChannel) -> None:
        opened.append(channel)
        channel.on("message", lambda message: (got.append(message), channel.send(message), pipe.changed.set()))
        channel.on("close", their_close.set)

    theirs.on("datachannel", on_channel)
    async with asyncio.TaskGroup() as tasks:
        carrying = tasks.create_task(pipe.carry())
        pipe.ours.connect(pipe.loop.time())
        pipe.flush()
        await theirs.start(RTCSctpCapabilities(maxMessageSize=65_536), 5000)
        await pipe.until(lambda: pipe.ours.established)
        channel = pipe.ours.open_channel(label="echo")
        sent = [bytes([number]) * (number * 997 + 1) for number in range(30)]
        for data in sent:
            pipe.ours.send(channel, data)
        pipe.flush()
        await pipe.until(lambda: len(pipe.messages()) == len(sent))
        assert got == pipe.messages() == sent
        pipe.ours.close_channel(channel)
        pipe.flush()
        await pipe.until(lambda: ChannelClosed(channel) in pipe.events)
        async with asyncio.timeout(30):
            await their_close.wait()

        back = RTCDataChannel(theirs, RTCDataChannelParameters(label="back"))
        await pipe.until(lambda: back.readyState == "open")
        back.send(b"hello")
        await pipe.until(lambda: pipe.messages()[-1] == b"hello")
        back.close()
        await pipe.until(lambda: sum(isinstance(event, ChannelClosed) for event in pipe.events) == 2)
        await theirs.stop()
        if not loss:
            await pipe.until(lambda: any(isinstance(event, Ended) for event in pipe.events))
        carrying.cancel()
    if pipe.timer is not None:
        pipe.timer.cancel()
