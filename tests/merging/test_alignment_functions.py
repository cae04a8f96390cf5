"""MagMax, and the projection of Safe LoRA and SafeMERGE: by hand, and against the formulas written out naively."""

import pytest
import torch

from safe_sft.merging import magmax
from safe_sft.merging.projection import factored_cosine, projected, update_cosine
from tests.merging.helpers import (
    naive_projection,
    random,
)


def test_magmax_by_hand():
    base, one, two = torch.tensor([1.0, 1, 1, 1]), torch.tensor([2.0, 0, 1, 3]), torch.tensor([1.5, -2, 1, -1])
    assert magmax(base, [one, two]).tolist() == [2, -2, 1, 3]  # of equal changes, the first model's
    assert magmax(base, [one, two], 0.5).tolist() == [1.5, -0.5, 1, 2]
    assert magmax(base, [one, two], 2.0).tolist() == [3, -5, 1, 5]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_magmax_of_three_is_the_largest_change(dtype):
    base, *models = [random(700, 900, seed=i).to(dtype) for i in range(4)]
    changes = torch.stack([model.double() - base.double() for model in models])
    largest = changes.abs().argmax(0, keepdim=True)
    expected = base.double() + 0.7 * changes.gather(0, largest)[0]
    torch.testing.assert_close(magmax(base, models, 0.7), expected.to(dtype))
    assert torch.equal(magmax(base, models, 0), base)
    whole = torch.stack(models).gather(0, largest)[0]
    assert torch.equal(magmax(base, models, 1), whole)


def test_magmax_of_integers_and_of_other_shapes():
    assert magmax(torch.tensor([1]), [torch.tensor([5]), torch.tensor([3])]).tolist() == [3]
    assert magmax(torch.zeros(0, 3), [torch.zeros(0, 3)]).shape == (0, 3)
    with pytest.raises(ValueError, match=r"\(2,\), \(3,\).*one shape"):
        magmax(torch.ones(2), [torch.ones(3)])


def test_the_projection_by_hand():
    # V = diag(3, 4), ‖V‖ = 5, C = diag(9, 16)/5; of the update (1, 1): (1.8, 3.2), cosine 5/√(2·13.48).
    v, update = torch.diag(torch.tensor([3.0, 4.0])), torch.tensor([[1.0], [1.0]])
    after = projected(v, update)
    torch.testing.assert_close(after, torch.tensor([[1.8], [3.2]]))
    assert update_cosine(v, update, after) == pytest.approx(5 / (2 * 13.48) ** 0.5)


@pytest.mark.parametrize("shape", [(30, 20, 20), (20, 30, 30), (20, 90, 90), (30, 20, 4)])
def test_every_order_of_products_is_the_naive_one(shape):
    rows, columns, k = shape
    v, update = random(rows, columns), random(rows, k, seed=1)
    expected, cosine = naive_projection(v, torch.zeros_like(v), update)
    after = projected(v.float(), update.float())
    torch.testing.assert_close(after.double(), expected, rtol=1e-5, atol=1e-5)
    assert update_cosine(v.float(), update.float(), after) == pytest.approx(cosine, abs=1e-6)


def test_the_cosine_of_factors_is_that_of_their_product():
    v, b, a = random(30, 20), random(30, 4, seed=1), random(4, 25, seed=2)
    _, cosine = naive_projection(v, torch.zeros_like(v), b @ a)
    assert factored_cosine(v.float(), b.float(), a.float(), projected(v.float(), b.float())) == pytest.approx(
        cosine, abs=1e-6
    )


def test_cosines_that_are_undefined_and_those_of_nothing_left():
    v, update = torch.tensor([[1.0, 0], [0, 0]]), torch.tensor([[0.0, 0], [0, 1]])
    assert update_cosine(v, update, projected(v, update)) == 0  # nothing of it is left
    assert factored_cosine(v, update, torch.eye(2), projected(v, update)) == 0
    zero = torch.zeros(2, 2)
    assert update_cosine(zero, update, update) is None
    assert update_cosine(v, zero, zero) is None
    assert factored_cosine(v, zero, torch.eye(2), zero) is None
    bad = torch.full((2, 2), float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        update_cosine(v, bad, projected(v, bad))
