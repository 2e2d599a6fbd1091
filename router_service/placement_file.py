"""A placement in a JSON file, for routers that no controller looks after."""

from __future__ import annotations

import json
from pathlib import Path

from google.protobuf import json_format

from wire.errors import InvalidRequestError
from wire.generated import orrery_pb2 as pb
from wire.messages import placement_from_message
from wire.placement import Placement


def read_placement(path: Path) -> Placement:
    """The placement in protobuf's JSON form of `orrery.v1.Placement`.

    Raises:
        InvalidRequestError: the file cannot be read or is not a placement; the message names it.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(raw, dict):
            raise InvalidRequestError(f"{path} is not a placement: it holds no JSON object")
        message = json_format.ParseDict(raw, pb.Placement())
    except (OSError, ValueError, RecursionError, json_format.ParseError) as error:
        raise InvalidRequestError(f"{path} is not a placement: {error}") from error
    return placement_from_message(message)
