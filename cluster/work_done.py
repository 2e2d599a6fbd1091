"""What experts and workers had to do so far, as the members tell it."""

from __future__ import annotations

import logging

from cluster.contacts import Link
from cluster.fleet import Fleet, Role
from cluster.life import UP
from cluster.loads import Tokens
from wire.errors import OrreryError

_log = logging.getLogger(__name__)


async def what_they_did(
    link: Link, fleet: Fleet, timeout_s: float, *, with_busy: bool
) -> tuple[dict[str, Tokens], dict[str, float]]:
    """By process: the tokens that each router has sent to experts, and, `with_busy`, the seconds of
    arithmetic of each expert worker. Who does not answer is left out."""
    counters: dict[str, Tokens] = {}
    busy: dict[str, float] = {}
    for member in fleet.members.values():
        if member.phase not in UP:
            continue
        process = f"{member.member_id} {member.pid}"
        try:
            if member.role is Role.ROUTER:
                counters[process] = await link.tokens(member, timeout_s)
            elif with_busy and not member.spare:
                busy[process] = await link.busy_seconds(member, timeout_s)
        except OrreryError as error:
            _log.info("%s does not tell its load: %s", member.member_id, error)
    return counters, busy
