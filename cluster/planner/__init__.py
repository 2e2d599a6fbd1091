"""Which worker should hold which expert: pure functions of shapes, fleets and costs."""

from cluster.planner.fleet import CostModel, WorkerSpec
from cluster.planner.grid import Grid
from cluster.planner.plan import Alternative, Plan, plan
from cluster.planner.predict import Prediction
from cluster.planner.shape import ModelShape

__all__ = [
    "Alternative",
    "CostModel",
    "Grid",
    "ModelShape",
    "Plan",
    "Prediction",
    "WorkerSpec",
    "plan",
]
