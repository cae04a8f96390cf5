"""Values worked out by hand, then independent formulas."""

import pytest
import torch
from torch.nn import functional as F

from safe_sft import losses
from safe_sft.losses import Head, outputs, weights
from safe_sft.methods.teacher_distance import DIVERGENCES

WEIGHT = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])  # three logits of two hidden units
HEAD = Head(WEIGHT)


def test_logits_by_hand():
    head = Head(WEIGHT, torch.tensor([1.0, 0.0, -1.0]), scale=0.5, softcap=2.0)
    # W h + b = (1 + 1, 2, 2 - 1); halved (1, 1, 0.5), then 2·tanh(z / 2)
    expected = torch.tensor([[0.924234, 0.924234, 0.489837]])
    hidden = torch.ones(1, 2)
    torch.testing.assert_close(head.logits(hidden), expected, rtol=1e-5, atol=0)
    parts = [head.words(part).logits(hidden) for part in (slice(0, 1), slice(1, 3))]
    assert torch.equal(torch.cat(parts, dim=1), head.logits(hidden))
    assert head.without_bias().logits(torch.zeros(1, 2)).tolist() == [[0.0, 0.0, 0.0]]


def test_gram_by_hand():
    # WᵀW = [[1+0+1, 0+0+1], [1, 0+4+1]]
    assert losses.logit_gram(WEIGHT).tolist() == [[2.0, 1.0], [1.0, 5.0]]


def test_squared_logit_distance_by_hand():
    hidden, teacher = torch.tensor([[1.0, 1.0], [3.0, 0.0]]), torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    # h − h₀ = (1, 1): W(h − h₀) = (1, 2, 2), squared 9; (2, 0): (2, 0, 2), squared 8
    expected = [9.0, 8.0]
    gram = losses.logit_gram(WEIGHT)
    assert losses.squared_logit_distance(hidden, teacher, gram).tolist() == expected
    assert losses.tiled_squared_logit_distance(hidden, HEAD, teacher, HEAD).tolist() == expected


def test_squared_logit_distance_with_softcap_by_hand():
    hidden, teacher = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    # logits (1, 0, 1), capped at 2: 2·tanh(1/2) = 0.924234, so 2 · 0.854209
    capped = Head(WEIGHT, softcap=2.0)
    distance = losses.tiled_squared_logit_distance(hidden, capped, teacher, capped)
    assert distance.item() == pytest.approx(1.708417, rel=1e-5)


@pytest.mark.parametrize("scale", [1.0, 0.25])
@pytest.mark.parametrize("tiles", [(2**24, 2**14), (40, 16)], ids=["one tile", "many tiles"])
def test_tiles_equal_materialised_logits(monkeypatch, scale, tiles):
    monkeypatch.setattr(outputs, "_TILE_ELEMENTS", tiles[0])
    monkeypatch.setattr(outputs, "_TILE_VOCAB", tiles[1])
    torch.manual_seed(0)
    h, h0 = torch.randn(2, 7, 5, dtype=torch.float64)
    w, w0 = torch.randn(2, 50, 5, dtype=torch.float64)
    b, b0 = torch.randn(2, 50, dtype=torch.float64)
    leaves = [tensor.requires_grad_() for tensor in (h, w, b)]
    z, z0 = (h @ w.T + b) * scale, (h0 @ w0.T + b0) * scale
    expected = (z - z0).square().sum(-1)
    actual = losses.tiled_squared_logit_distance(h, Head(w, b, scale), h0, Head(w0, b0, scale))
    torch.testing.assert_close(actual, expected, rtol=1e-8, atol=0)
    for a, e in zip(
        torch.autograd.grad(actual.sum(), leaves), torch.autograd.grad(expected.sum(), leaves), strict=True
    ):
        torch.testing.assert_close(a, e, rtol=1e-8, atol=1e-10)


def test_gram_form_equals_materialised_logits():
    torch.manual_seed(0)
    w = torch.randn(300, 16, dtype=torch.float64)
    h, h0 = torch.randn(2, 9, 16, dtype=torch.float64)
    h.requires_grad_()
    expected = (h @ w.T - h0 @ w.T).square().sum(-1)
    actual = losses.squared_logit_distance(h, h0, losses.logit_gram(w))
    torch.testing.assert_close(actual, expected, rtol=1e-8, atol=0)
    gradients = [torch.autograd.grad(distance.sum(), h)[0] for distance in (actual, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-10)


def test_gram_form_is_more_exact_than_bf16_logits():
    torch.manual_seed(0)
    w = (torch.randn(512, 64) / 8).bfloat16()
    h0 = torch.randn(20, 64).bfloat16()
    h = (h0.float() + 0.05 * torch.randn(20, 64)).bfloat16()
    exact = ((h.double() - h0.double()) @ w.double().T).square().sum(-1)
    gram = losses.squared_logit_distance(h, h0, losses.logit_gram(w)).double()
    naive = (h @ w.T - h0 @ w.T).float().square().sum(-1).double()
    assert ((gram - exact).abs() / exact).max() < 1e-5 < 1e-3 < ((naive - exact).abs() / exact).max()


def test_cross_entropy_by_hand():
    hidden = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    # logits (0, 0, 0): log 3; logits (1, 0, 1), target 1: log(2e + 1)
    expected = torch.tensor([1.0986123, 1.8619948])
    torch.testing.assert_close(losses.token_cross_entropy(hidden, HEAD, torch.tensor([2, 1])), expected)


def test_cross_entropy_equals_torch():
    torch.manual_seed(0)
    h, w, targets = torch.randn(6, 8, requires_grad=True), torch.randn(40, 8), torch.randint(40, (6,))
    ours = losses.token_cross_entropy(h, Head(w), targets)
    torchs = F.cross_entropy(h @ w.T, targets, reduction="none")
    torch.testing.assert_close(ours, torchs)
    torch.testing.assert_close(*(torch.autograd.grad(loss.sum(), h)[0] for loss in (ours, torchs)))


def test_quadratic_penalty_by_hand():
    parameters = [torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([[3.0]], requires_grad=True)]
    anchors = [torch.tensor([0.0, 2.0]), torch.tensor([[1.0]])]
    importance = [torch.tensor([2.0, 5.0]), torch.tensor([[0.5]])]
    # ½ (1² + 0² + 2²) = 2.5; weighted ½ (2·1 + 0 + 0.5·4) = 2
    assert losses.quadratic_penalty(parameters, anchors).item() == 2.5
    weighted = losses.quadratic_penalty(parameters, anchors, importance)
    assert weighted.item() == pytest.approx(2.0)
    (3 * weighted).backward()
    # 3 · ω (θ − θ*)
    assert [p.grad.flatten().tolist() for p in parameters] == [[6.0, 0.0], [3.0]]


def test_quadratic_penalty_in_groups_is_the_same(monkeypatch):
    torch.manual_seed(0)
    parameters = [torch.randn(n, requires_grad=True) for n in (3, 8, 1, 5)]
    anchors = [torch.randn_like(p) for p in parameters]
    whole = losses.quadratic_penalty(parameters, anchors)
    monkeypatch.setattr(weights, "_GROUP_ELEMENTS", 8)
    parts = losses.quadratic_penalty(parameters, anchors)
    torch.testing.assert_close(parts, whole)
    for a, b in zip(torch.autograd.grad(parts, parameters), torch.autograd.grad(whole, parameters), strict=True):
        torch.testing.assert_close(a, b)


def test_quadratic_penalty_refuses_another_shape():
    with pytest.raises(ValueError, match=r"Anchor of shape \(3,\) for a parameter of shape \(2,\)"):
        losses.quadratic_penalty([torch.zeros(2)], [torch.zeros(3)])


def test_low_rank_norm_by_hand():
    left, right = torch.tensor([[[1.0], [2.0]]]), torch.tensor([[[3.0, 4.0]]])
    # [[3, 4], [6, 8]]: 9 + 16 + 36 + 64
    assert losses.low_rank_squared_norm(left, right).tolist() == [125.0]


def test_low_rank_norm_equals_dense():
    torch.manual_seed(0)
    left, right = torch.randn(4, 9, 3, dtype=torch.float64), torch.randn(4, 3, 7, dtype=torch.float64)
    torch.testing.assert_close(losses.low_rank_squared_norm(left, right), (left @ right).square().sum((-2, -1)))


def materialised_divergence(z, z0, kind: str, temperature: float):
    p, p0 = (F.log_softmax(logits / temperature, -1) for logits in (z, z0))
    mixture = torch.log((p.exp() + p0.exp()) / 2)

    def kl(a, b):
        return (a.exp() * (a - b)).sum(-1)

    value = {"kl": kl(p0, p), "reverse_kl": kl(p, p0), "jsd": (kl(p, mixture) + kl(p0, mixture)) / 2}[kind]
    return value * temperature**2


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("kind", ["kl", "reverse_kl", "jsd"])
def test_divergences_equal_materialised_logits(kind, temperature):
    torch.manual_seed(0)
    h, w, h0, w0 = torch.randn(7, 8, requires_grad=True), torch.randn(50, 8), torch.randn(7, 8), torch.randn(50, 8)
    expected = materialised_divergence(0.5 * h @ w.T, 0.5 * h0 @ w0.T, kind, temperature)
    heads = Head(w, scale=0.5), Head(w0, scale=0.5)
    ours = losses.token_divergence(h, heads[0], h0, heads[1], beta=DIVERGENCES[kind], temperature=temperature)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        *(torch.autograd.grad(loss.sum(), h)[0] for loss in (ours, expected)), rtol=1e-4, atol=1e-5
    )


def test_a_few_tokens_at_a_time_is_the_same(monkeypatch):
    torch.manual_seed(0)
    h, w, h0, w0 = torch.randn(7, 8, requires_grad=True), torch.randn(50, 8), torch.randn(7, 8), torch.randn(50, 8)
    w.requires_grad_()
    targets = torch.randint(50, (7,))

    def gradients() -> tuple[torch.Tensor, ...]:
        divergence = losses.token_divergence(h, Head(w), h0, Head(w0), beta=0.5)
        values = divergence, losses.token_cross_entropy(h, Head(w), targets)
        return *values, *torch.autograd.grad(sum(value.square().sum() for value in values), [h, w])

    at_once = gradients()
    monkeypatch.setattr(outputs, "_TILE_ELEMENTS", 3 * outputs._KERNEL_VOCAB)
    for parts, whole in zip(gradients(), at_once, strict=True):
        torch.testing.assert_close(parts, whole)


@pytest.fixture
def double_kernels(monkeypatch):
    """TRL's kernels, which name float32 wherever they compute, compute in float64."""
    monkeypatch.setattr(torch, "float32", torch.float64)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


@pytest.mark.usefixtures("double_kernels")
@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("kind", ["kl", "reverse_kl", "jsd", "cross-entropy"])
def test_the_kernels_without_rounding_are_exact(kind, softcap):
    torch.manual_seed(0)
    shapes = ((20, 16), (400, 16), (400,)) * 2
    tensors = [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in shapes]

    def logits(h, w, b):
        z = 0.5 * (h @ w.T + b)
        return z if softcap is None else softcap * torch.tanh(z / softcap)

    h, w, b, h0, w0, b0 = tensors
    z, z0 = logits(h, w, b), logits(h0, w0, b0).detach()
    if kind == "cross-entropy":
        targets = torch.randint(400, (20,))
        expected = F.cross_entropy(z, targets, reduction="none")
        ours = losses.token_cross_entropy(h, Head(w, b, 0.5, softcap), targets)
    else:
        expected = materialised_divergence(z, z0, kind, 2.0)
        options = {"beta": DIVERGENCES[kind], "temperature": 2.0}
        heads = Head(w, b, 0.5, softcap), Head(w0, b0, 0.5, softcap)
        ours = losses.token_divergence(h, heads[0], h0, heads[1], **options)
    weights = torch.randn(20, dtype=torch.float64)
    results = [(loss, *torch.autograd.grad(loss @ weights, [h, w, b])) for loss in (ours, expected)]
    for found, true in zip(*results, strict=True):
        torch.testing.assert_close(found, true, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", ["kl", "reverse_kl", "jsd"])
def test_the_kernels_error_is_float32_rounding(kind):
    """TRL's kernel sums in float32 even for float64: about as far from the truth as torch itself in float32."""
    torch.manual_seed(0)
    exact = [torch.randn(*size, dtype=torch.float64) for size in ((20, 16), (400, 16), (20, 16), (400, 16))]
    results = {}
    for dtype in (torch.float64, torch.float32):
        h, w, h0, w0 = (tensor.to(dtype) for tensor in exact)
        h.requires_grad_()
        for name, value in (
            ("torch", materialised_divergence(h @ w.T, h0 @ w0.T, kind, 1.0)),
            ("kernel", losses.token_divergence(h, Head(w), h0, Head(w0), beta=DIVERGENCES[kind])),
        ):
            results[name, dtype] = value.detach().double(), torch.autograd.grad(value.sum(), h)[0].double()
    truth = results["torch", torch.float64]

    def errors(name: str, dtype: torch.dtype) -> list[float]:
        return [((r - t).norm() / t.norm()).item() for r, t in zip(results[name, dtype], truth, strict=True)]

    for dtype in (torch.float64, torch.float32):
        for kernel, torchs in zip(errors("kernel", dtype), errors("torch", torch.float32), strict=True):
            assert kernel < max(4 * torchs, 1e-6)


def test_kl_by_hand():
    # logits (0, 0, 0) against (0, 0, log 2): p = (1, 1, 1)/3, p0 = (1, 1, 2)/4
    head = Head(torch.eye(3))
    student, teacher = torch.zeros(1, 3), torch.tensor([[0.0, 0.0, 0.6931472]])
    # 2 · ¼ log(¾) + ½ log(3/2)
    assert losses.token_divergence(student, head, teacher, head, beta=0.0).item() == pytest.approx(0.0588915, abs=1e-6)


def test_mammoths_der_is_a_mean_over_tokens_and_classes():
    """Its weight is `vocab` times ours: two tokens, three logits, squared distances 9 and 8."""
    hidden, teacher = torch.tensor([[1.0, 1.0], [2.0, 0.0]]), torch.zeros(2, 2)
    mammoths = F.mse_loss(hidden @ WEIGHT.T, teacher @ WEIGHT.T)  # (1 + 4 + 4 + 4 + 0 + 4) / 6
    assert mammoths.item() == pytest.approx(17 / 6)
    vocab = len(WEIGHT)
    for ours in (
        losses.squared_logit_distance(hidden, teacher, losses.logit_gram(WEIGHT)),
        losses.tiled_squared_logit_distance(hidden, HEAD, teacher, HEAD),
    ):
        assert ours.mean().item() == 8.5
        assert (ours.mean() / vocab).item() == pytest.approx(mammoths.item())
