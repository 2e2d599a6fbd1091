"""The sampler: rows do not see each other, parameters do what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from router_service.logits import adjusted
from router_service.logprobs import token_logprobs
from router_service.outputs import RequestOutput
from router_service.sampler import Sampler
from router_service.sequence import Sequence
from router_service.stop_checker import StopChecker
from tests.unit.router_service.fake_model import FakeDetokenizer, request

VOCAB = 700
EOS = 1


class Nowhere:
    def deliver(self, outputs: list[RequestOutput]) -> None: ...


def sequence(prompt: tuple[int, ...] = (2, 3), **sampling: object) -> Sequence:
    made = request(prompt, **sampling)
    stops = StopChecker(
        made.sampling, max_output=99, eos_token_ids=(EOS,), new_detokenizer=FakeDetokenizer
    )
    return Sequence(number=0, request=made, sink=Nowhere(), stops=stops, now=0.0)


def random_logits(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, VOCAB, generator=torch.Generator().manual_seed(seed)) * 3


KINDS = (
    {"temperature": 0.0},
    {"temperature": 0.0, "logprobs": 3},
    {"temperature": 1.0, "seed": 4},
    {"temperature": 0.7, "top_p": 0.9, "logprobs": 20},
    {"temperature": 1.0, "presence_penalty": 1.0, "outputs": (5, 6, 5)},
    {"temperature": 0.0, "logit_bias": {77: 50.0}},
)


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 31, 64])
def test_a_row_does_not_see_its_neighbours(rows: int) -> None:
    logits = random_logits(rows)
    sequences = [sequence(**KINDS[row % len(KINDS)]) for row in range(rows)]
    sampler = Sampler((EOS,))
    together = sampler.sample(logits, sequences)
    alone = [
        sampler.sample(logits[row : row + 1].clone(), [seq])[0] for row, seq in enumerate(sequences)
    ]
    assert together == alone


def test_greedy_takes_the_lowest_of_equals() -> None:
    logits = torch.zeros(3, VOCAB)
    logits[:, 600] = logits[:, 40] = 2.0
    sequences = [sequence(), sequence(logprobs=2), sequence(logit_bias={9: 0.0})]
    choices = Sampler((EOS,)).sample(logits, sequences)
    assert [choice.token for choice in choices] == [40, 40, 40]
    assert choices[1].logprobs is not None
    assert choices[1].logprobs.top_token_ids == (40, 600)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_row_that_is_not_finite_has_no_token(value: float) -> None:
    logits = random_logits(2)
    logits[1, 8] = value
    choices = Sampler((EOS,)).sample(logits, [sequence(), sequence(temperature=1.0)])
    assert choices[0].token is not None
    assert choices[1].token is None


def test_penalties_bias_and_minimum_length() -> None:
    raw = np.full(VOCAB, 2.0, dtype=np.float32)
    raw[4] = -2.0
    seq = sequence(
        prompt=(3, 4),
        outputs=(5, 5, 6),
        repetition_penalty=2.0,
        frequency_penalty=0.5,
        presence_penalty=0.25,
        logit_bias={6: 10.0, 7: -1.0},
        min_tokens=4,
        stop_token_ids=(8,),
        ignore_eos=False,
    )
    row = adjusted(raw, seq, (EOS,))
    assert row[3] == 1.0
    assert row[4] == -4.0
    assert row[5] == 1.0 - 2 * 0.5 - 0.25
    assert row[6] == 1.0 - 0.5 - 0.25 + 10.0
    assert row[7] == 1.0
    assert row[8] == row[EOS] == -np.inf
    assert row[9] == 2.0
    seq.append(9)
    assert adjusted(raw, seq, (EOS,))[8] == 2.0


def test_an_ignored_end_of_sequence_is_not_forbidden() -> None:
    seq = sequence(min_tokens=3, ignore_eos=True, stop_token_ids=(8,))
    row = adjusted(np.zeros(VOCAB, dtype=np.float32), seq, (EOS,))
    assert (row[EOS], row[8]) == (0.0, -np.inf)


def test_logprobs_are_those_of_the_raw_distribution() -> None:
    row = random_logits(1)[0]
    want = torch.log_softmax(row.double(), dim=0).float()
    got = token_logprobs(row.numpy(), 123, 20)
    top = torch.topk(row, 20)
    assert got.logprob == want[123].item()
    assert list(got.top_token_ids) == top.indices.tolist()
    assert list(got.top_logprobs) == want[top.indices].tolist()


@pytest.mark.parametrize("top", [0, 1, 7, 20])
def test_top_alternatives_among_ties_have_the_lowest_ids(top: int) -> None:
    row = np.zeros(VOCAB, dtype=np.float32)
    row[[500, 300]] = 1.0
    got = token_logprobs(row, 0, top)
    order = [300, 500, *range(300)]
    assert list(got.top_token_ids) == order[:top]


def test_more_alternatives_than_tokens() -> None:
    assert token_logprobs(np.zeros(3, dtype=np.float32), 0, 20).top_token_ids == (0, 1, 2)
