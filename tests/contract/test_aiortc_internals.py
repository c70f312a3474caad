"""The internals of aiortc, aioice and pyOpenSSL that `kodo.p2p.net.webrtc` touches; a new release that changes one
fails here, by name, and not in the field."""

from __future__ import annotations

import importlib.metadata
import inspect

import pytest
from aioice import stun
from aiortc import RTCCertificate
from aiortc.rtcdatachannel import RTCDataChannel
from aiortc.rtcdtlstransport import RTCDtlsTransport, State
from aiortc.rtcsctptransport import DataChunk, HeartbeatChunk, InitAckChunk, InitChunk, RTCSctpTransport, SackChunk
from OpenSSL import SSL

TAKEN_OVER = {
    RTCDtlsTransport: ["_do_handshake", "_recv_next", "_set_role", "_set_state", "_write_ssl", "stop"],
    RTCSctpTransport: [
        "_data_channel_closed",
        "_flight_size_decrease",
        "_get_inbound_stream",
        "_handle_data",
        "_mark_received",
        "_receive",
        "_receive_chunk",
        "_receive_data_chunk",
        "_receive_sack_chunk",
        "_send",
        "_send_chunk",
        "_send_sack",
        "_set_state",
        "_transmit",
        "start",
        "stop",
    ],
    RTCDataChannel: ["_setReadyState", "close", "send"],
    RTCCertificate: ["_create_ssl_context"],
    SSL.Connection: ["DTLSv1_listen", "bio_read", "bio_write", "get_peer_certificate", "set_accept_state"],
    SSL.Context: ["set_cookie_generate_callback", "set_cookie_verify_callback"],
    stun.Message: ["add_message_integrity", "check_message_integrity"],
}

READ_AND_WRITTEN = {
    "_advertised_rwnd",
    "_association_state",
    "_cwnd",
    "_data_channel_id",
    "_data_channels",
    "_flight_size",
    "_inbound_streams",
    "_last_received_tsn",
    "_local_partial_reliability",
    "_local_tsn",
    "_outbound_queue",
    "_sack_duplicates",
    "_sack_misordered",
    "_sack_needed",
    "_sent_queue",
}


@pytest.mark.parametrize("owner", TAKEN_OVER, ids=lambda owner: owner.__name__)
def test_what_is_overridden_or_called_is_there(owner: type) -> None:
    assert [name for name in TAKEN_OVER[owner] if not callable(getattr(owner, name, None))] == []


def test_the_associations_fields_are_set_where_they_were() -> None:
    source = inspect.getsource(RTCSctpTransport.__init__)
    assert {name for name in READ_AND_WRITTEN if f"self.{name}" not in source} == set()


def test_a_chunk_says_what_is_read_of_it() -> None:
    assert hasattr(InitChunk(), "advertised_rwnd")
    assert hasattr(InitAckChunk(), "advertised_rwnd")
    sack = SackChunk()
    assert (sack.advertised_rwnd, sack.gaps) == (0, [])
    assert hasattr(DataChunk(), "tsn")
    assert HeartbeatChunk().params == []


def test_the_window_is_given_back_before_a_message_is_delivered() -> None:
    # The subclass takes it away again until the application has read; were the order changed, it would count twice.
    source = inspect.getsource(RTCSctpTransport._receive_data_chunk)
    assert source.index("self._advertised_rwnd += len(message[2])") < source.index("await self._receive(*message)")


def test_dtls_keeps_its_states() -> None:
    assert {"NEW", "CONNECTING", "CONNECTED", "CLOSED", "FAILED"} <= set(State.__members__)


@pytest.mark.parametrize("package", ["aiortc", "aioice"])
def test_the_release_is_the_one_that_this_was_written_for(package: str) -> None:
    [pinned] = [
        line.split(";")[0].split("==")[1].strip()
        for line in importlib.metadata.requires("kodo") or []
        if line.startswith(f"{package}==")
    ]
    assert importlib.metadata.version(package) == pinned
