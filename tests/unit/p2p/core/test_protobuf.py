import pytest

from kodo.p2p.core.protobuf import bytes_field, fields, varint_field


def test_writes_the_examples_of_the_encoding_guide():
    assert varint_field(1, 150) == bytes.fromhex("089601")
    assert bytes_field(2, b"testing") == bytes.fromhex("120774657374696e67")


def test_reads_fields_in_the_order_of_the_wire():
    data = varint_field(1, 150) + bytes_field(2, b"testing") + varint_field(1, 0) + bytes_field(300, b"")
    assert list(fields(data)) == [(1, 150), (2, b"testing"), (1, 0), (300, b"")]


def test_passes_over_fields_of_fixed_width():
    data = b"\x0d" + bytes(4) + b"\x11" + bytes(8) + varint_field(3, 7)
    assert list(fields(data)) == [(3, 7)]


def test_reads_negative_enums_of_ten_bytes():
    assert list(fields(b"\x08" + b"\xff" * 9 + b"\x01")) == [(1, 2**64 - 1)]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x08", id="no value"),
        pytest.param(b"\x08\x80", id="varint cut off"),
        pytest.param(b"\x08" + b"\xff" * 10, id="varint of eleven bytes"),
        pytest.param(b"\x08" + b"\xff" * 9 + b"\x02", id="more than 64 bits"),
        pytest.param(b"\x12\x02a", id="bytes cut off"),
        pytest.param(b"\x0d\x00\x00\x00", id="fixed32 cut off"),
        pytest.param(b"\x09" + bytes(7), id="fixed64 cut off"),
        pytest.param(b"\x00\x00", id="field number 0"),
        pytest.param(b"\x80\x80\x80\x80\x10\x00", id="field number over 29 bits"),
        pytest.param(b"\x0b", id="group start"),
        pytest.param(b"\x0e\x00", id="wire type 6"),
    ],
)
def test_refuses_malformed_messages(data):
    with pytest.raises(ValueError, match="protobuf"):
        list(fields(data))
