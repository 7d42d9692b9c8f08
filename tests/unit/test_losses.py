"""Losses against the formulas of their papers and against the libraries that have them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from linne.data.loading.augment_mix import Mixture
from linne.recipe import OptimConfig
from linne.training.losses import Loss, class_weights, disagreement, make_loss

N, K = 12, 5
COUNTS_K = np.array([500, 120, 40, 7, 1])
CPU = torch.device("cpu")
ROUNDING = {"rtol": 1e-5, "atol": 1e-6}
"""Sums of a few float32 values in another order."""


def loss_of(**fields) -> Loss:
    return make_loss(OptimConfig(**fields), COUNTS_K, CPU)


@pytest.fixture
def logits() -> torch.Tensor:
    return 3 * torch.randn(N, K, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def labels() -> torch.Tensor:
    return torch.arange(N) % K


@pytest.fixture
def mixture(labels) -> Mixture:
    shares = torch.rand(N, generator=torch.Generator().manual_seed(1))
    return Mixture(labels.roll(1), shares)


def soft_targets(labels: torch.Tensor, mixture: Mixture | None) -> torch.Tensor:
    own = F.one_hot(labels, K).float()
    if mixture is None:
        return own
    share = mixture.shares_N[:, None]
    return share * own + (1 - share) * F.one_hot(mixture.labels_N, K).float()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_torchs(logits, labels, mixture, smoothing):
    loss = loss_of(label_smoothing=smoothing)
    assert torch.equal(loss(logits, labels, None), F.cross_entropy(logits, labels, label_smoothing=smoothing))
    mixed = F.cross_entropy(logits, soft_targets(labels, mixture), label_smoothing=smoothing)
    torch.testing.assert_close(loss(logits, labels, mixture), mixed, **ROUNDING)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_mixed_cross_entropy_and_its_gradient_are_torchs_to_the_bit(logits, labels, mixture, smoothing):
    ours, theirs = (logits.clone().requires_grad_() for _ in range(2))
    own_N, other_N = (
        F.cross_entropy(theirs, each, reduction="none", label_smoothing=smoothing)
        for each in (labels, mixture.labels_N)
    )
    expected = (mixture.shares_N * own_N + (1 - mixture.shares_N) * other_N).mean()
    loss = loss_of(label_smoothing=smoothing)(ours, labels, mixture)
    assert torch.equal(loss, expected)
    assert torch.equal(*torch.autograd.grad(loss, ours), *torch.autograd.grad(expected, theirs))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("threshold", [None, 0.2])
def test_binary_cross_entropy_is_timms_with_the_sum_over_classes(logits, labels, smoothing, threshold):
    from timm.loss import BinaryCrossEntropy

    loss = loss_of(loss="bce", label_smoothing=smoothing, bce_threshold=threshold)
    reference = BinaryCrossEntropy(smoothing, threshold, reduction="none")(logits, labels).sum(1).mean()
    torch.testing.assert_close(loss(logits, labels, None), reference, **ROUNDING)


@pytest.mark.parametrize("threshold", [None, 0.2])
def test_binary_cross_entropy_of_mixed_images_is_timms_with_soft_targets(logits, labels, mixture, threshold):
    from timm.loss import BinaryCrossEntropy

    loss = loss_of(loss="bce", bce_threshold=threshold)
    reference = BinaryCrossEntropy(0.0, threshold, reduction="none")(logits, soft_targets(labels, mixture))
    torch.testing.assert_close(loss(logits, labels, mixture), reference.sum(1).mean(), **ROUNDING)


def test_focal_loss_follows_its_formula(logits, labels):
    p = logits.softmax(1)[torch.arange(N), labels]
    expected = -((1 - p) ** 2 * p.log()).mean()
    torch.testing.assert_close(loss_of(loss="focal")(logits, labels, None), expected, **ROUNDING)


def test_focal_loss_with_gamma_0_is_cross_entropy(logits, labels, mixture):
    loss = loss_of(loss="focal", focal_gamma=0.0, label_smoothing=0.1)
    for mixed in (None, mixture):
        expected = F.cross_entropy(logits, soft_targets(labels, mixed), label_smoothing=0.1)
        torch.testing.assert_close(loss(logits, labels, mixed), expected, **ROUNDING)


def test_focal_loss_of_a_mixed_image_is_that_of_both_labels_by_their_shares(logits, labels, mixture):
    loss = loss_of(loss="focal")
    for row in range(N):
        one = slice(row, row + 1)
        own, other = (loss(logits[one], which[one], None) for which in (labels, mixture.labels_N))
        share = mixture.shares_N[row]
        mixed = loss(logits[one], labels[one], Mixture(mixture.labels_N[one], mixture.shares_N[one]))
        torch.testing.assert_close(mixed, share * own + (1 - share) * other, **ROUNDING)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_has_a_finite_gradient_where_the_answer_is_certain(gamma):
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    loss_of(loss="focal", focal_gamma=gamma)(logits, torch.tensor([0, 0]), None).backward()
    assert logits.grad.isfinite().all()


def test_class_weights_are_the_inverse_of_the_effective_number_and_sum_to_the_number_of_classes():
    beta = 0.99
    effective = np.array([(1 - beta**n) / (1 - beta) for n in COUNTS_K])
    weights = class_weights(COUNTS_K, beta)
    assert weights == pytest.approx(K * (1 / effective) / (1 / effective).sum())
    assert weights.sum() == pytest.approx(K)
    assert effective[-1] == pytest.approx(1), "one image counts as one"


def test_class_weights_near_1_go_with_the_inverse_of_the_number_of_images():
    weights = class_weights(COUNTS_K, 1 - 1e-9)
    assert weights / weights[-1] == pytest.approx(1 / COUNTS_K, rel=1e-4)


@pytest.mark.parametrize("name", ["cross-entropy", "bce", "focal"])
def test_class_balance_multiplies_the_loss_of_each_image_by_the_weight_of_its_class(logits, labels, name):
    plain = loss_of(loss=name, label_smoothing=0.1)
    each = torch.stack([plain(logits[i : i + 1], labels[i : i + 1], None) for i in range(N)])
    weights = torch.from_numpy(class_weights(COUNTS_K, 0.99)).float()[labels]
    balanced = loss_of(loss=name, label_smoothing=0.1, class_balance=0.99)
    torch.testing.assert_close(balanced(logits, labels, None), (weights * each).mean(), **ROUNDING)


def test_a_mixed_image_has_the_weights_of_both_classes_by_their_shares(logits, labels, mixture):
    weights = torch.from_numpy(class_weights(COUNTS_K, 0.99)).float()
    each = F.cross_entropy(logits, soft_targets(labels, mixture), reduction="none")
    mixed = mixture.shares_N * weights[labels] + (1 - mixture.shares_N) * weights[mixture.labels_N]
    balanced = loss_of(class_balance=0.99)(logits, labels, mixture)
    torch.testing.assert_close(balanced, (mixed * each).mean(), **ROUNDING)


def test_logit_adjustment_follows_its_formula(logits, labels):
    prior = torch.from_numpy(COUNTS_K / COUNTS_K.sum()).float()
    scaled = prior**1.5 * logits.exp()
    expected = -(scaled[torch.arange(N), labels] / scaled.sum(1)).log().mean()
    torch.testing.assert_close(loss_of(logit_adjustment=1.5)(logits, labels, None), expected, **ROUNDING)


def test_a_class_without_training_images_leaves_every_loss_finite(logits, labels):
    counts = np.array([10, 10, 10, 10, 0])
    for fields in ({"class_balance": 0.999}, {"logit_adjustment": 1.0}):
        loss = make_loss(OptimConfig(**fields), counts, CPU)
        assert loss(logits, labels % 4, None).isfinite()


def jensen_shannon(logits_VNK: np.ndarray) -> float:
    """Return the mean over images of the entropy of the mean answer less the mean entropy, in float64."""
    shares_VNK = np.exp(logits_VNK - logits_VNK.max(2, keepdims=True))
    shares_VNK /= shares_VNK.sum(2, keepdims=True)

    def entropy(shares):
        return -(shares * np.log(shares)).sum(-1)

    return float((entropy(shares_VNK.mean(0)) - entropy(shares_VNK).mean(0)).mean())


def test_views_disagree_by_their_jensen_shannon_divergence():
    logits_VNK = 3 * torch.randn(3, N, K, generator=torch.Generator().manual_seed(2))
    expected = jensen_shannon(logits_VNK.double().numpy())
    assert disagreement(logits_VNK).item() == pytest.approx(expected, rel=1e-5)  # rounding of float32
    # As in the authors' code, but for the bound: divergences from the mean answer, by torch.
    shares_VNK = logits_VNK.softmax(2)
    logs_NK = shares_VNK.mean(0).log()
    theirs = sum(F.kl_div(logs_NK, shares_NK, reduction="batchmean") for shares_NK in shares_VNK) / 3
    torch.testing.assert_close(disagreement(logits_VNK), theirs, **ROUNDING)


def test_views_that_get_one_answer_do_not_disagree_and_sure_ones_of_different_labels_do_most():
    same_VNK = torch.randn(1, N, K).expand(3, N, K)
    assert disagreement(same_VNK).item() == pytest.approx(0, abs=1e-6)
    sure_VNK = 1e4 * torch.eye(3, K)[:, None].expand(3, N, K)
    sure_VNK = sure_VNK.clone().requires_grad_()
    apart = disagreement(sure_VNK)
    assert apart.item() == pytest.approx(np.log(3), rel=1e-6)
    (gradient,) = torch.autograd.grad(apart, sure_VNK)
    assert gradient.isfinite().all()
