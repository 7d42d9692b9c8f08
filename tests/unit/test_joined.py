"""Work on many tensors comes to the same in one call and one after the other."""

from __future__ import annotations

import pytest
import torch

from linne.training import joined


@pytest.fixture
def pairs() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 4), (5,), ()]
    first, second = ([torch.randn(shape, generator=generator) for shape in shapes] for _ in range(2))
    return first, second


def both_ways(work, mine) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    results = []
    for way in (True, False):
        changed = [tensor.clone() for tensor in mine]
        work(changed, way)
        results.append(changed)
    return results[0], results[1]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.9, 1.0])
def test_moving_towards_others(pairs, share):
    mine, theirs = pairs
    in_one, in_turn = both_ways(lambda changed, way: joined.move_towards(changed, theirs, share, joined=way), mine)
    for one, other, start, end in zip(in_one, in_turn, mine, theirs, strict=True):
        torch.testing.assert_close(one, (1 - share) * start + share * end)
        torch.testing.assert_close(one, other)


def test_copying(pairs):
    mine, theirs = pairs
    for changed in both_ways(lambda changed, way: joined.copy_into(changed, theirs, joined=way), mine):
        assert all(torch.equal(one, other) for one, other in zip(changed, theirs, strict=True))


def test_the_norm_is_that_of_all_numbers_together(pairs):
    mine, _ = pairs
    expected = torch.linalg.vector_norm(torch.cat([tensor.flatten() for tensor in mine]))
    for way in (True, False):
        torch.testing.assert_close(joined.total_norm(mine, joined=way), expected)


def test_adding_scaled_steps(pairs):
    mine, steps = pairs
    scale = torch.tensor(0.25)

    def work(changed: list[torch.Tensor], way: bool) -> None:
        joined.add_scaled(changed, [step.clone() for step in steps], scale, joined=way)

    for changed in both_ways(work, mine):
        for one, start, step in zip(changed, mine, steps, strict=True):
            torch.testing.assert_close(one, start + 0.25 * step)
