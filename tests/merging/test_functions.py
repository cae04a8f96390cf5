"""The formulas: numbers worked out by hand, then laws."""

from math import acos, cos, pi, sin, sqrt

import pytest
import torch

from safe_sft.merging import linear, slerp, task_arithmetic
from safe_sft.merging.functions import INTERPOLATIONS, merged

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def pair(dtype=torch.float32, shape=(300, 500)):
    generator = torch.Generator().manual_seed(0)
    aligned, noise = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return aligned.to(dtype), (0.5 * aligned + noise).to(dtype)


def test_linear_by_hand():
    torch.testing.assert_close(
        linear(torch.tensor([1.0, 10.0]), torch.tensor([3.0, 0.0]), 0.25), torch.tensor([1.5, 7.5])
    )


def test_task_arithmetic_extrapolates():
    a, t = torch.tensor([1.0, 2.0]), torch.tensor([2.0, 0.0])
    torch.testing.assert_close(task_arithmetic(a, t, 1.5), torch.tensor([2.5, -1.0]))
    torch.testing.assert_close(task_arithmetic(a, t, -1.0), torch.tensor([0.0, 4.0]))


def test_slerp_of_a_right_angle_by_hand():
    x, y = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    torch.testing.assert_close(slerp(x, y, 0.5), torch.tensor([sqrt(0.5), sqrt(0.5)]))
    torch.testing.assert_close(slerp(x, y, 1 / 3), torch.tensor([cos(pi / 6), sin(pi / 6)]))


def test_slerp_takes_the_angle_of_the_units_and_applies_it_to_the_tensors():
    # 60° apart, lengths 2 and 1: sin(30°)/sin(60°) · (2, 0) + sin(30°)/sin(60°) · (½, √3/2).
    factor = sin(pi / 6) / sin(pi / 3)
    result = slerp(torch.tensor([2.0, 0.0]), torch.tensor([0.5, sqrt(3) / 2]), 0.5)
    torch.testing.assert_close(result, torch.tensor([factor * 2.5, factor * sqrt(3) / 2]))


def mergekit_slerp(t, v0, v1):
    """Its formula, written from the description: unit vectors for the angle, 0.9995, the tensors themselves."""
    u0, u1 = (v.double().flatten() / v.double().norm() for v in (v0, v1))
    dot = (u0 * u1).sum().item()
    if abs(dot) > 0.9995:
        return (1 - t) * v0.double() + t * v1.double()
    theta = acos(dot)
    return (sin(theta - t * theta) * v0.double() + sin(t * theta) * v1.double()) / sin(theta)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weight", [0.1, 0.5, 0.9])
def test_slerp_is_that_of_mergekit(dtype, weight):
    a, t = pair(dtype)
    expected = mergekit_slerp(weight, a, t)
    precision = torch.float64 if dtype == torch.float64 else torch.float32
    torch.testing.assert_close(merged(a, t, "slerp", weight, precision).double(), expected, rtol=3e-6, atol=1e-6)
    torch.testing.assert_close(
        slerp(a, t, weight), expected.to(dtype), rtol=1e-2 if precision != dtype else 3e-6, atol=1e-6
    )


@pytest.mark.parametrize("cosine", [0.99949, 0.99951, -0.99949, -0.99951])
def test_slerp_turns_linear_where_mergekit_does(cosine):
    a = torch.tensor([1.0, 0.0], dtype=torch.float64)
    t = 3 * torch.tensor([cosine, sqrt(1 - cosine**2)], dtype=torch.float64)
    torch.testing.assert_close(slerp(a, t, 0.3), mergekit_slerp(0.3, a, t))
    assert torch.equal(slerp(a, t, 0.3), linear(a, t, 0.3)) == (abs(cosine) > 0.9995)


def test_slerp_is_symmetric():
    a, t = pair()
    torch.testing.assert_close(slerp(a, t, 0.3), slerp(t, a, 0.7), rtol=1e-6, atol=1e-6)


def test_slerp_stays_on_the_sphere():
    a, t = (x / x.norm() for x in pair(torch.float64))
    for weight in (0.2, 0.5, 0.8):
        assert slerp(a, t, weight).norm().item() == pytest.approx(1, abs=1e-12)
    assert linear(a, t, 0.5).norm() < 0.95


@pytest.mark.parametrize("zero", ["aligned", "tuned", "both"])
def test_slerp_with_a_zero_tensor_is_linear(zero):
    a, t = (torch.zeros(3) if zero in (side, "both") else torch.ones(3) for side in ("aligned", "tuned"))
    assert torch.equal(slerp(a, t, 0.25), linear(a, t, 0.25))


@pytest.mark.parametrize("method", INTERPOLATIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_ends_are_bit_for_bit(method, dtype):
    a, t = pair(dtype)
    a[0, 0], t[0, 1] = float("nan"), float("inf")  # not even these leak from one into the other
    for weight, expected in ((0, a), (0.0, a), (1, t), (1.0, t)):
        torch.testing.assert_close(merged(a, t, method, weight), expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("method", INTERPOLATIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_equal_tensors_stay_as_they_are(method, dtype):
    a, _ = pair(dtype)
    assert torch.equal(merged(a, a.clone(), method, 0.3), a)


@pytest.mark.parametrize("weight", [0.1, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32_and_rounded_once(dtype, weight):
    a, t = pair(dtype)
    assert torch.equal(linear(a, t, weight), torch.lerp(a.float(), t.float(), weight).to(dtype))


def test_mixed_dtypes_give_the_tuned_one():
    a, t = pair()
    result = linear(a, t.bfloat16(), 0.5)
    assert result.dtype == torch.bfloat16
    assert torch.equal(result, torch.lerp(a, t.bfloat16().float(), 0.5).bfloat16())
    assert merged(a.bfloat16(), t.bfloat16(), "slerp", 0.5, torch.float32).dtype == torch.float32


def test_integers_are_the_tuned_ones():
    assert linear(torch.tensor([1, 2]), torch.tensor([5, 6]), 0.1).tolist() == [5, 6]
    assert slerp(torch.tensor([True]), torch.tensor([False]), 0.1).tolist() == [False]


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1,)])
@pytest.mark.parametrize("method", INTERPOLATIONS)
def test_small_shapes(method, shape):
    result = merged(torch.ones(shape), torch.full(shape, 3.0), method, 0.5)
    assert torch.equal(result, torch.full(shape, 2.0))


def test_differing_shapes_are_refused():
    with pytest.raises(ValueError, match=r"shape \(2,\).*\(3,\).*Merge tensors of one shape"):
        linear(torch.ones(2), torch.ones(3), 0.5)
