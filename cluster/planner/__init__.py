"""Which worker should hold which expert: pure functions of shapes, fleets, loads and costs."""

from cluster.planner.fleet import CostModel, WorkerSpec, WorkerState
from cluster.planner.grid import Grid
from cluster.planner.in_flight import choose_in_flight
from cluster.planner.plan import Alternative, Plan, plan
from cluster.planner.predict import Prediction
from cluster.planner.rebalance import Budget, Rebalance, rebalance
from cluster.planner.redundancy import TWICE, Redundancy
from cluster.planner.repair import Repair, Scale, drain, repair, scale
from cluster.planner.shape import ModelShape
from cluster.planner.transition import Drain, Evict, Load, Publish, Step, Transition

__all__ = [
    "TWICE",
    "Alternative",
    "Budget",
    "CostModel",
    "Drain",
    "Evict",
    "Grid",
    "Load",
    "ModelShape",
    "Plan",
    "Prediction",
    "Publish",
    "Rebalance",
    "Redundancy",
    "Repair",
    "Scale",
    "Step",
    "Transition",
    "WorkerSpec",
    "WorkerState",
    "choose_in_flight",
    "drain",
    "plan",
    "rebalance",
    "repair",
    "scale",
]
