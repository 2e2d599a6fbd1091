"""Which dispatch frames a worker takes."""

from __future__ import annotations

from itertools import compress

import torch

from experts_service.status import WorkerState, WorkerStatus
from kimi_k2.config import ModelConfig
from wire.codec import decode_request
from wire.envelope import MAX_FRAME_BYTES, Message
from wire.errors import BadFrameError, DrainingError, UnavailableError
from wire.frames import DispatchRequest
from wire.header import HEADER_BYTES

_MAX_ANSWER_BYTES = MAX_FRAME_BYTES - HEADER_BYTES


class Admission:
    """Decodes frames and refuses those that cannot be computed.

    Whether the experts are held is left to the runtime: they may be evicted while a request
    waits.
    """

    def __init__(self, config: ModelConfig, dtype: torch.dtype, status: WorkerStatus) -> None:
        self._config = config
        self._dtype = dtype
        self._status = status
        self._layers = frozenset(config.moe_layers)

    def admit(self, message: Message) -> DispatchRequest:
        """The request in an enveloped frame.

        Raises:
            BadFrameError: malformed, or not for this model.
            StaleEpochError: of an older term than this worker has seen.
            DrainingError, UnavailableError: the worker takes nothing now.
        """
        request = decode_request(message)
        if self._status.state is WorkerState.DRAINING:
            raise DrainingError("the worker is draining")
        if self._status.state is not WorkerState.READY:
            raise UnavailableError(f"the worker is {self._status.state.value}")
        self._status.check_term(request.epoch)
        self._check_model(request)
        return request

    def _check_model(self, request: DispatchRequest) -> None:
        config = self._config
        if request.layer not in self._layers:
            raise BadFrameError(f"layer {request.layer} of the model has no routed experts")
        if request.x.shape[1] != config.hidden_size:
            raise BadFrameError(
                f"rows of {request.x.shape[1]} elements, the model's have {config.hidden_size}"
            )
        if request.x.dtype != self._dtype:
            raise BadFrameError(f"rows in {request.x.dtype}, this worker computes {self._dtype}")
        top_k = config.num_experts_per_tok
        counts = request.counts.tobytes()
        if max(counts) > top_k:
            raise BadFrameError(f"a row asks for {max(counts)} experts, most are {top_k}")
        if any(count != top_k for count in compress(counts, request.combine.tobytes())):
            raise BadFrameError(f"a row to combine does not ask for all its {top_k} experts")
        row_bytes = config.hidden_size * self._dtype.itemsize
        # Nearly always enough, and without a look at each row.
        if len(request.experts) * row_bytes + 16 > _MAX_ANSWER_BYTES:
            rows = request.answer_rows
            if rows * row_bytes + 16 > _MAX_ANSWER_BYTES:
                raise BadFrameError(f"an answer of {rows} rows would exceed the frame limit")
