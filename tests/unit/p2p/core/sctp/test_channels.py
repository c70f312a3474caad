"""Stream resets as peers do them that are not like ours."""

from __future__ import annotations

import struct

from kodo.p2p.core.sctp import wire
from kodo.p2p.core.sctp.channels import Channels, Resets
from kodo.p2p.core.sctp.outbound import Outbound
from kodo.p2p.core.sctp.wire import PARAMETER_RESET_OUTGOING, PARAMETER_RESET_RESPONSE, ResetRequest

PERFORMED, IN_PROGRESS = 1, 6


class Side:
    """The resets of one side; what closes or begins anew is noted."""

    def __init__(self) -> None:
        self.channels = Channels(Outbound(1100), client=False, streams=100, most=100)
        self.closed: list[int] = []
        self.anew: list[int] = []
        self.resets = Resets(
            self.channels, 500, 700, lambda channel: self.closed.append(channel.id), self.anew.append
        )

    def ask(self, sequence: int, last_tsn: int, *streams: int, arrived: int) -> tuple[int, int]:
        """Take a request of the peer; give number and result of the answer."""
        parameter = wire.encode_reset_request(ResetRequest(sequence, 499, last_tsn, streams))
        answer = self.resets.take_parameter(
            PARAMETER_RESET_OUTGOING, parameter[4 : 16 + 2 * len(streams)], arrived, lambda tsn: tsn
        )
        return read(answer)

    def arrived(self, tsn: int) -> bytes:
        return self.resets.perform(tsn, lambda tsn: tsn)

    def respond(self, sequence: int, result: int) -> None:
        self.resets.take_parameter(PARAMETER_RESET_RESPONSE, struct.pack(">II", sequence, result), 0, lambda tsn: tsn)


def read(answer: bytes) -> tuple[int, int]:
    sequence, result = struct.unpack(">II", answer[4:12])
    return sequence, result


def test_a_request_that_comes_while_another_waits_for_data_does_not_replace_it() -> None:
    side = Side()
    assert side.ask(700, 50, 2, arrived=40) == (700, IN_PROGRESS)
    assert side.ask(701, 60, 4, arrived=45) == (701, IN_PROGRESS)
    assert read(side.arrived(50)) == (700, PERFORMED)
    assert side.anew == [2]
    assert read(side.arrived(60)) == (701, PERFORMED)
    assert side.anew == [2, 4]


def test_what_is_asked_again_under_a_new_number_is_performed_once() -> None:
    side = Side()
    assert side.ask(700, 50, 2, arrived=40) == (700, IN_PROGRESS)
    assert side.ask(701, 50, 2, arrived=40) == (701, IN_PROGRESS)
    side.arrived(50)
    assert side.ask(702, 50, 2, arrived=50) == (702, PERFORMED)
    assert side.anew == [2]


def test_a_peer_cannot_make_it_keep_requests_without_end() -> None:
    side = Side()
    answers = [side.ask(700 + number, 1000 + number, 2, arrived=0)[1] for number in range(100)]
    assert answers.count(IN_PROGRESS) == 16
    assert IN_PROGRESS not in answers[16:]


def test_a_request_that_was_answered_in_progress_is_sent_again_under_a_new_number() -> None:
    side = Side()
    channel = side.channels.create("", "", 1, negotiated=True)
    side.channels.close(channel)
    first = side.resets.next_request(100, 99)
    assert first == side.resets.request_to_send()
    side.respond(500, IN_PROGRESS)
    again = side.resets.request_to_send()
    assert again is not None
    assert (again.sequence, again.streams, again.last_tsn) == (501, (1,), 99)
    side.respond(500, PERFORMED)
    assert side.resets.request is again
    side.respond(501, PERFORMED)
    assert side.resets.request is None


def test_an_answer_that_comes_late_before_it_is_sent_again_counts() -> None:
    side = Side()
    side.channels.close(side.channels.create("", "", 1, negotiated=True))
    side.resets.next_request(100, 99)
    side.respond(500, IN_PROGRESS)
    side.respond(500, PERFORMED)
    assert side.resets.request is None
    side.channels.close(side.channels.create("", "", 3, negotiated=True))
    following = side.resets.next_request(100, 99)
    assert following is not None
    assert following.sequence == 501


def test_a_channel_is_reset_when_the_peer_has_all_that_was_sent_on_it_and_waits_for_no_other() -> None:
    side = Side()
    first, second = (side.channels.create("", "", number, negotiated=True) for number in (1, 3))
    side.channels.close(first)
    assert side.resets.next_request(100, 98) is None
    side.channels.close(second)
    assert side.resets.next_request(120, 98) is None
    request = side.resets.next_request(130, 105)
    assert request is not None
    assert (request.streams, request.last_tsn) == ((1,), 105)
