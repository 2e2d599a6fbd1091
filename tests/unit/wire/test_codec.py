"""Frames survive the wire bit for bit, and nothing malformed is decoded."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wire.codec import (
    decode_answer,
    decode_request,
    encode_error,
    encode_reply,
    encode_request,
)
from wire.envelope import PREFIX_BYTES
from wire.errors import BadFrameError
from wire.frames import DispatchReply, DispatchRequest, ErrorReply
from wire.generated import orrery_pb2 as pb
from wire.header import BODY_START, peek_request_id
from wire.placement import Epoch

EPOCH = Epoch(term=3, counter=14)


def request(
    rows: int = 3, hidden: int = 8, dtype: torch.dtype = torch.float32, seed: int = 0
) -> DispatchRequest:
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 5, rows).astype(np.uint8)
    experts = [np.sort(rng.permutation(384)[:count]) for count in counts]
    x = torch.randn(rows, hidden, generator=torch.Generator().manual_seed(seed)).to(dtype)
    return DispatchRequest(
        request_id=2**63 + 5,
        epoch=EPOCH,
        layer=60,
        x=x,
        counts=counts,
        combine=counts == 4,
        experts=np.concatenate(experts).astype(np.uint16),
        weights=rng.random(counts.sum(), np.float32),
    )


def bits(x: torch.Tensor) -> bytes:
    return x.contiguous().view(torch.uint8).numpy().tobytes()


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 70),
    hidden=st.sampled_from([1, 7, 64, 256]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    seed=st.integers(0, 1000),
    by_protobuf=st.booleans(),
)
def test_a_request_survives(
    rows: int, hidden: int, dtype: torch.dtype, seed: int, by_protobuf: bool
) -> None:
    sent = request(rows, hidden, dtype, seed)
    message = encode_request(sent)
    if by_protobuf:
        message = pb.Frame.FromString(message).SerializeToString()
    got = decode_request(message)
    assert (got.request_id, got.epoch, got.layer) == (sent.request_id, EPOCH, 60)
    assert got.x.dtype == dtype and got.x.shape == sent.x.shape and bits(got.x) == bits(sent.x)
    for name in ("counts", "combine", "experts", "weights"):
        assert np.array_equal(getattr(got, name), getattr(sent, name))
        assert getattr(got, name).dtype == getattr(sent, name).dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_reply_survives(dtype: torch.dtype) -> None:
    rows = torch.randn(5, 7).to(dtype)
    got = decode_answer(encode_reply(DispatchReply(request_id=9, epoch=EPOCH, layer=1, rows=rows)))
    assert isinstance(got, DispatchReply)
    assert (got.request_id, got.epoch, got.layer) == (9, EPOCH, 1)
    assert bits(got.rows) == bits(rows)


@pytest.mark.parametrize("expert", [None, 0, 383])
@pytest.mark.parametrize("request_id", [0, 7])
def test_an_error_survives(expert: int | None, request_id: int) -> None:
    sent = ErrorReply(request_id=request_id, code="bad_frame", message="zu kürz", expert=expert)
    assert decode_answer(encode_error(sent)) == sent


def test_a_long_error_text_is_cut() -> None:
    sent = ErrorReply(request_id=1, code="internal", message="ä" * 9000)
    got = decode_answer(encode_error(sent))
    assert isinstance(got, ErrorReply) and got.message == "ä" * 2048


def test_tensors_are_views_of_the_message_and_aligned() -> None:
    message = encode_request(request(4, 64))
    got = decode_request(message)
    start = np.frombuffer(message, np.uint8).ctypes.data
    assert start <= got.x.data_ptr() < start + len(message)
    assert (got.x.data_ptr() - start) % 16 == 0


def test_every_frame_is_a_protobuf_frame() -> None:
    for message in (
        encode_request(request()),
        encode_reply(DispatchReply(request_id=1, epoch=EPOCH, layer=1, rows=torch.ones(1, 4))),
        encode_error(ErrorReply(request_id=1, code="internal", message="")),
    ):
        frame = pb.Frame.FromString(message)
        assert frame.frame == message[PREFIX_BYTES:]


def test_cut_at_any_byte_is_refused() -> None:
    message = encode_request(request(2, 4))
    for end in range(len(message)):
        with pytest.raises(BadFrameError):
            decode_request(message[:end])
        inner = message[PREFIX_BYTES:end]
        if inner:
            with pytest.raises(BadFrameError):
                decode_request(pb.Frame(frame=inner).SerializeToString())


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_flipped_byte_decodes_or_is_refused_and_nothing_else(data: st.DataObject) -> None:
    message = bytearray(encode_request(request(3, 4)))
    at = data.draw(st.integers(0, len(message) - 1))
    message[at] ^= data.draw(st.integers(1, 255))
    try:
        decode_request(bytes(message))
    except BadFrameError:
        return
    assert at >= PREFIX_BYTES


@settings(max_examples=200, deadline=None)
@given(noise=st.binary(max_size=300))
def test_noise_is_refused(noise: bytes) -> None:
    for message in (noise, pb.Frame(frame=noise).SerializeToString()):
        with pytest.raises(BadFrameError):
            decode_request(message)
        with pytest.raises(BadFrameError):
            decode_answer(message)


def test_the_request_id_of_a_broken_frame_is_found() -> None:
    message = bytearray(encode_request(request()))
    message[BODY_START] = 0
    assert peek_request_id(bytes(message)) == 2**63 + 5
    struct.pack_into("<4s", message, PREFIX_BYTES, b"NOPE")
    assert peek_request_id(bytes(message)) == 0
    assert peek_request_id(b"") == 0


def test_integers_do_not_travel() -> None:
    with pytest.raises(BadFrameError, match="does not travel"):
        encode_reply(
            DispatchReply(
                request_id=1, epoch=EPOCH, layer=1, rows=torch.ones(1, 4, dtype=torch.int32)
            )
        )
