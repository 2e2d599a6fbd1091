"""What a worker answers to Describe."""

from __future__ import annotations

import os

from experts_service.config import WorkerConfig
from experts_service.model import ServedModel
from experts_service.status import WorkerStatus
from wire.carriers.carrier import INLINE, LOCAL
from wire.generated import orrery_pb2 as pb
from wire.messages import epoch_to_message, experts_to_message


def description_of(
    config: WorkerConfig, status: WorkerStatus, model: ServedModel | None, metrics_address: str
) -> pb.WorkerDescription:
    """Of a worker of this process; `model`: None until it is opened."""
    description = pb.WorkerDescription(
        worker_id=config.worker_id,
        state=status.state.message,
        term=status.term,
        epoch=epoch_to_message(status.epoch),
        device=config.device,
        experts_assigned=status.assigned,
        error=status.error,
        metrics_address=metrics_address,
        pid=os.getpid(),
        carriers=[] if config.carrier == INLINE else [LOCAL],
    )
    if model is not None:
        description.model_hash = model.model_hash
        description.fingerprint = model.numerics.fingerprint
        description.dtype = str(model.numerics.dtype).removeprefix("torch.")
        description.hidden_size = model.config.hidden_size
        description.experts.extend(experts_to_message(model.store.held()))
        description.experts_loaded = model.store.count
        description.memory_bytes = model.store.nbytes
        description.tokens_total = model.counts.total
    return description
