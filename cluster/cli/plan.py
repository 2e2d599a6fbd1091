"""`orrery plan`: what the planner would choose for a model and a fleet, without starting it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from cluster.cli.options import add_fleet_flags, config_of
from cluster.cli.table import table
from cluster.planner import Alternative, Plan
from cluster.views import ranges


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "plan",
        help="show what the planner would choose, and what it predicts",
        epilog="examples:\n  orrery plan --workers 8\n  orrery plan --config fleet.yaml --json\n"
        "  orrery plan --loads models/nano-k2/expert_loads.json --domains chat,tools",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_fleet_flags(parser)
    parser.add_argument(
        "--loads",
        metavar="FILE",
        type=Path,
        help="plan for recorded loads of experts, as models/nano-k2/expert_loads.json (all equal)",
    )
    parser.add_argument(
        "--domains", metavar="NAMES", default="", help="those of --loads that count (all)"
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    config = config_of(options)
    from cluster.blueprint import draw

    domains = tuple(filter(None, options.domains.split(",")))
    blueprint = draw(config, options.loads, domains)
    plan = blueprint.plan
    if options.json:
        print(json.dumps(_as_json(plan, blueprint.micro_batches, blueprint.workers), indent=2))
        return 0
    planner = config.planner
    print(
        f"{blueprint.model_name} on {len(blueprint.workers)} expert workers, {planner.rows} rows a "
        f"step in {blueprint.micro_batches} micro-batches\n"
    )
    print(
        table(
            ["grid", "ms/step", "messages", "KB/step", "bound by"],
            [_row(item, item.grid == plan.grid) for item in plan.alternatives],
        )
    )
    print()
    print(
        table(
            ["worker", "layers", "experts"],
            [
                [worker, ranges(list(held)), "; ".join(sorted({ranges(e) for e in held.values()}))]
                for worker in blueprint.workers
                for held in [plan.experts_of(worker)]
            ],
        )
    )
    experts = sum(len(layer) for layer in plan.owners.values())
    print(f"\nchosen: {plan.reasons[0]}")
    print(f"copies: {plan.copies}, of {experts} experts")
    print(f"balancedness: {_balance(plan)}")
    if plan.fewer:
        print(f"note: {plan.fewer}")
    return 0


def _balance(plan: Plan) -> str:
    scores = plan.balancedness.values()
    return f"{sum(scores) / len(scores):.3f} mean, {min(scores):.3f} in the worst layer"


def _row(item: Alternative, chosen: bool) -> list[str]:
    name = f"{item.grid} *" if chosen else str(item.grid)
    if item.prediction is None:
        return [name, "-", "-", "-", item.refused]
    made = item.prediction
    return [
        name,
        f"{made.step_seconds * 1e3:.2f}",
        f"{made.messages:.0f}",
        f"{made.link_bytes / 1e3:.0f}",
        made.bound,
    ]


def _as_json(plan: Plan, micro_batches: int, workers: tuple[str, ...]) -> dict[str, object]:
    return {
        "grid": str(plan.grid),
        "micro_batches": micro_batches,
        "step_seconds": plan.prediction.step_seconds,
        "bound": plan.prediction.bound,
        "copies": plan.copies,
        "fewer": plan.fewer,
        "balancedness": {str(layer): score for layer, score in plan.balancedness.items()},
        "reasons": list(plan.reasons),
        "alternatives": [
            {
                "grid": str(item.grid),
                "step_seconds": item.prediction.step_seconds if item.prediction else None,
                "messages": item.prediction.messages if item.prediction else None,
                "link_bytes": item.prediction.link_bytes if item.prediction else None,
                "refused": item.refused,
            }
            for item in plan.alternatives
        ],
        "workers": {
            worker: {str(layer): ranges(e) for layer, e in plan.experts_of(worker).items()}
            for worker in workers
        },
    }
