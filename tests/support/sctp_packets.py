"""What the packets and events of simulated associations hold, and packets that a peer might forge."""

from struct import pack, unpack_from

from kodo.p2p.core.sctp import Ended, MessageReceived, wire


def kinds(packet):
    """The chunk types in a packet."""
    found, position = [], 12
    while position < len(packet):
        kind, _, length = unpack_from(">BBH", packet, position)
        found.append(kind)
        position += length + (-length & 3)
    return found


def events(network, side, kind):
    return [event for event in network.events[id(side)] if isinstance(event, kind)]


def messages(network, side, channel=None):
    return [
        event.data
        for event in events(network, side, MessageReceived)
        if channel is None or event.channel_id == channel
    ]


def errors(network, side):
    return [event.error for event in events(network, side, Ended)]


def reading(network):
    """Make both sides read what they are given at once."""
    keep = network.on_event

    def on_event(side, event):
        keep(side, event)
        if isinstance(event, MessageReceived):
            side.consumed(len(event.data))

    network.on_event = on_event
    return network


def drop_first(network, side, kind, count=1):
    """Lose the first packets of a side that hold a chunk of a kind."""
    lost = []

    def drop(packet):
        if kind in kinds(packet) and len(lost) < count:
            lost.append(packet)
            return True
        return False

    network.paths[id(side)].drop = drop
    return lost


def forge(network, side, chunks):
    """A packet that `side` takes for one of its peer."""
    tag = 11 if side is network.client else 22
    return wire.PacketCodec(5000, tag).encode(chunks)


def give(network, side, chunks):
    side.receive_datagram(forge(network, side, chunks), network.now)
    network.flush(side)


def data_chunk(tsn, stream=0, sequence=0, protocol=53, data=b"x", flags=3):
    body = pack(">IHHI", tsn & 0xFFFFFFFF, stream, sequence, protocol) + data
    return wire.encode_chunk(wire.DATA, body, flags)
