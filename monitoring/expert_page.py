"""Tokens by layer and expert as Prometheus text, on a page of its own.

A model such as K2 has 23,040 of these series. Among a router's other metrics they would make every
scrape slow; here they are asked for as seldom as one likes, and made by joining strings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

PATH = "/metrics/experts"
NAME = "orrery_router_logical_expert_tokens_total"
MEANING = "Expert-token pairs dispatched, by layer and logical expert; on a page of its own."
LABELS = ("layer", "expert")


def expert_page(tokens: Mapping[int, Sequence[int]]) -> str:
    """The page's text.

    Args:
        tokens: layer to the count of each logical expert, in the order of their ids.

    >>> print(expert_page({1: [5, 0]}).splitlines()[-1])
    orrery_router_logical_expert_tokens_total{layer="1",expert="1"} 0
    """
    lines = [f"# HELP {NAME} {MEANING}", f"# TYPE {NAME} counter"]
    lines += [
        f'{NAME}{{layer="{layer}",expert="{expert}"}} {count}'
        for layer, counts in tokens.items()
        for expert, count in enumerate(counts)
    ]
    return "\n".join(lines) + "\n"
