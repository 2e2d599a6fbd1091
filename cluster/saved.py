"""A fleet as the journal keeps it: what the next controller cannot see for itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cluster.fleet import Fleet, Member, Role, no_placement
from cluster.holdings import Owners, owned, owners_with

Saved = dict[str, Any]


def save(fleet: Fleet) -> Saved:
    """Who is in the fleet, who is to hold what, and what was asked for."""
    share = owned(fleet.owners)
    return {
        "workers": fleet.workers,
        "spares": fleet.spares,
        "number": fleet.number,
        "router_number": fleet.router_number,
        "routers": {m.member_id: {"leaving": m.leaving} for m in fleet.of(Role.ROUTER)},
        "avoid": sorted(fleet.avoid),
        "restarts": list(fleet.restarts),
        "experts": {
            member.member_id: {
                "spare": member.spare,
                "leaving": member.leaving,
                "fingerprint": member.fingerprint,
                "holds": {
                    str(layer): list(ids) for layer, ids in share.get(member.member_id, {}).items()
                },
            }
            for member in fleet.of(Role.EXPERT)
        },
    }


def lasting(fleet: Fleet) -> tuple[object, ...]:
    """What `save` keeps, to be compared: quick, since it is looked at after every event."""
    if not fleet.begun:
        return ()
    return (
        *(fleet.workers, fleet.spares, fleet.number, fleet.avoid, fleet.restarts),
        id(fleet.owners),
        [(m.member_id, m.spare, m.leaving) for m in fleet.members.values()],
    )


def resume(saved: Mapping[str, Any], planned: Fleet) -> Fleet:
    """The fleet of a former controller, of which nothing is known yet but what it kept.

    Args:
        planned: the fleet that the blueprint describes, in the new term.

    Raises:
        KeyError, TypeError, ValueError: `saved` is not what `save` makes.
    """
    owners: Owners = {layer: ((),) * len(ids) for layer, ids in planned.owners.items()}
    members: dict[str, Member] = {}
    for name, about in saved["experts"].items():
        holds = {int(layer): tuple(map(int, ids)) for layer, ids in about["holds"].items()}
        members[name] = Member(
            member_id=name,
            role=Role.EXPERT,
            experts=holds,
            spare=bool(about["spare"]),
            leaving=bool(about["leaving"]),
            fingerprint=str(about["fingerprint"]),
        )
        owners = owners_with(owners, name, holds)
    for name, about in saved["routers"].items():
        members[name] = Member(member_id=name, role=Role.ROUTER, leaving=bool(about["leaving"]))
    return Fleet(
        members=members,
        owners=owners,
        placement=no_placement(owners, planned.placement.epoch.term),
        workers=int(saved["workers"]),
        spares=int(saved["spares"]),
        number=int(saved["number"]),
        routers=planned.routers,
        router_number=int(saved["router_number"]),
        resumed=True,
        restarts=tuple(map(str, saved["restarts"])),
        avoid=frozenset(map(str, saved["avoid"])),
    )
