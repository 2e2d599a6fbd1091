"""The engine's values to protobuf messages and back."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from router_service.outputs import FinishReason, RequestOutput, TokenLogprobs
from router_service.request import Request
from router_service.sampling import SamplingParams
from wire.generated import orrery_pb2 as pb
from wire.messages import sampling_fields

_REASONS: Mapping[FinishReason | None, pb.FinishReason] = MappingProxyType(
    {
        None: pb.FINISH_REASON_UNSPECIFIED,
        FinishReason.STOP: pb.FINISH_REASON_STOP,
        FinishReason.LENGTH: pb.FINISH_REASON_LENGTH,
        FinishReason.ABORT: pb.FINISH_REASON_ABORT,
        FinishReason.ERROR: pb.FINISH_REASON_ERROR,
    }
)


def request_from_message(message: pb.Submit) -> Request:
    """Raises InvalidRequestError naming the sampling value that cannot be served."""
    return Request(
        request_id=message.request_id,
        prompt_token_ids=tuple(message.prompt_token_ids),
        output_token_ids=tuple(message.output_token_ids),
        sampling=SamplingParams(**sampling_fields(message.sampling)),
        timeout_s=message.timeout_s or None,
    )


def outputs_to_message(outputs: list[RequestOutput]) -> pb.StepOutput:
    return pb.StepOutput(outputs=[_output(output) for output in outputs])


def _output(output: RequestOutput) -> pb.RequestOutput:
    message = pb.RequestOutput(
        request_id=output.request_id,
        token_ids=output.token_ids,
        finish_reason=_REASONS[output.finish_reason],
        prompt_tokens=output.prompt_tokens,
        cached_tokens=output.cached_tokens,
    )
    if output.logprobs:
        message.logprobs.extend(_logprobs(entry) for entry in output.logprobs)
    if output.stop_reason:
        message.stop_reason = output.stop_reason
    if output.error is not None:
        message.error.code = str(output.error.code)
        message.error.message = str(output.error)
    return message


def _logprobs(entry: TokenLogprobs) -> pb.TokenLogprobs:
    return pb.TokenLogprobs(
        token_id=entry.token_id,
        logprob=entry.logprob,
        top_token_ids=entry.top_token_ids,
        top_logprobs=entry.top_logprobs,
    )
