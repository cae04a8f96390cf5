import pytest
import torch

from safe_sft.importance import per_sequence
from safe_sft.importance.per_sequence import summed_bias_powers, summed_power_margins, summed_powers


def dense(inputs, gradients, exponent):
    """One sequence at a time."""
    return sum((g.T @ x).abs() ** exponent for x, g in zip(inputs, gradients, strict=True))


@pytest.fixture(params=[(3, 2, 40, 50), (3, 30, 5, 7)], ids=["short sequences", "long sequences"])
def tensors(request):
    sequences, tokens, d_in, d_out = request.param
    torch.manual_seed(0)
    return (
        torch.randn(sequences, tokens, d_in, dtype=torch.float64),
        torch.randn(sequences, tokens, d_out, dtype=torch.float64),
    )


@pytest.mark.parametrize("tile", [1, 30, 120, 2**24])  # numbers: a row of a weight, some rows, some sequences, all
@pytest.mark.parametrize("exponent", [1, 2])
def test_margins_are_those_of_the_dense_matrix(tensors, exponent, tile, monkeypatch):
    monkeypatch.setattr(per_sequence, "_TILE_ELEMENTS", tile)
    expected = dense(*tensors, exponent)
    torch.testing.assert_close(summed_powers(*tensors, exponent), expected, rtol=1e-12, atol=0)
    rows, columns = summed_power_margins(*tensors, exponent)
    torch.testing.assert_close(rows, expected.sum(1), rtol=1e-12, atol=0)
    torch.testing.assert_close(columns, expected.sum(0), rtol=1e-12, atol=0)


def test_worked_out_by_hand():
    # One sequence of two tokens: the gradient is [3 + 2·1, 3·2 + 2·(-1)] = [5, 4].
    inputs, gradients = torch.tensor([[[1.0, 2.0], [1.0, -1.0]]]), torch.tensor([[[3.0], [2.0]]])
    assert summed_powers(inputs, gradients, 2).tolist() == [[25.0, 16.0]]
    rows, columns = summed_power_margins(inputs, gradients, 2)
    assert (rows.tolist(), columns.tolist()) == ([41.0], [25.0, 16.0])
    assert summed_bias_powers(gradients, 2).tolist() == [25.0]
    assert summed_bias_powers(-gradients, 1).tolist() == [5.0]


def test_margins_of_nothing_are_zero_not_below():
    inputs = torch.randn(1, 4, 64) * 1e3
    rows, columns = summed_power_margins(inputs, torch.randn(1, 4, 64) * torch.tensor([0.0, 1.0] * 32), 2)
    assert rows.min() == 0
    assert columns.min() >= 0
