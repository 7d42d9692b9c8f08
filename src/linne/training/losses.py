"""What training lowers: the losses that a recipe can name, for images of one label and for mixed ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from linne.data.loading.augment_mix import Mixture
from linne.data.source import Source
from linne.recipe import OptimConfig

Loss = Callable[[torch.Tensor, torch.Tensor, Mixture | None], torch.Tensor]
"""From logits N x K in fp32, labels N and what was mixed in, to the mean loss of an image."""
OfTargets = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""From logits and targets, both N x K, to the loss of each image."""


def class_counts(source: Source) -> NDArray[np.int64]:
    """Return how many training images each class has."""
    return np.bincount(source.splits["train"].labels_N, minlength=source.num_classes)


def make_loss(config: OptimConfig, counts_K: NDArray[np.int64] | None, device: torch.device) -> Loss:
    """Return the loss that `config` names.

    Args:
        counts_K: training images of each class, for `class_balance` and `logit_adjustment`.
    """
    if config.loss == "cross-entropy" and config.class_balance is None and config.logit_adjustment is None:
        return partial(cross_entropy, label_smoothing=config.label_smoothing)
    weights_K = shift_K = None
    if config.class_balance is not None:
        weights_K = _put(class_weights(_at_least_one(counts_K), config.class_balance), device)
    if config.logit_adjustment is not None:
        counts = _at_least_one(counts_K)
        shift_K = _put(config.logit_adjustment * np.log(counts / counts.sum()), device)
    of_targets: OfTargets = _cross_entropy
    if config.loss == "bce":
        of_targets = partial(_binary, threshold=config.bce_threshold)
    elif config.loss == "focal":
        of_targets = partial(_focal, gamma=config.focal_gamma)
    smoothing = config.label_smoothing
    return partial(soft_loss, of_targets=of_targets, label_smoothing=smoothing, weights_K=weights_K, shift_K=shift_K)


def _put(values_K: NDArray[np.float64], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(values_K).float().to(device)


def _at_least_one(counts_K: NDArray[np.int64] | None) -> NDArray[np.int64]:
    assert counts_K is not None, "who asks for a loss by class counts the classes"
    return np.maximum(counts_K, 1)  # a class without training images is never a label


def cross_entropy(
    logits_NK: torch.Tensor, labels_N: torch.Tensor, mixture: Mixture | None, *, label_smoothing: float
) -> torch.Tensor:
    """Return the mean cross entropy; of a mixed image, that of both labels by their shares.

    Cross entropy is linear in its target, so this is the loss against soft labels without K numbers an image.
    """
    if mixture is None:
        return F.cross_entropy(logits_NK, labels_N, label_smoothing=label_smoothing)
    own_N, other_N = (_each_loss(logits_NK, labels, label_smoothing) for labels in (labels_N, mixture.labels_N))
    # `-x + 1`: for `1 - x` DirectML wants double precision, which many GPUs lack (its issue 699).
    return (mixture.shares_N * own_N + (-mixture.shares_N + 1) * other_N).mean()


def _each_loss(logits_NK: torch.Tensor, labels_N: torch.Tensor, label_smoothing: float) -> torch.Tensor:
    """Return `F.cross_entropy(..., reduction="none")`, whose gradient DirectML takes for zero (its issue 739)."""
    logs_NK = F.log_softmax(logits_NK, dim=1)
    losses_N = -logs_NK.gather(1, labels_N[:, None])[:, 0]
    if label_smoothing == 0:
        return losses_N
    return (1 - label_smoothing) * losses_N + -logs_NK.sum(1) * (label_smoothing / logits_NK.shape[1])


def soft_loss(
    logits_NK: torch.Tensor,
    labels_N: torch.Tensor,
    mixture: Mixture | None,
    *,
    of_targets: OfTargets,
    label_smoothing: float,
    weights_K: torch.Tensor | None,
    shift_K: torch.Tensor | None,
) -> torch.Tensor:
    """Return the mean of `of_targets(logits_NK, targets_NK)` over the images.

    Args:
        weights_K: what the loss of an image of each class is multiplied by.
        shift_K: added to the logits (logit adjustment, Menon et al. 2020: the bundle then answers without it).
    """
    targets_NK = F.one_hot(labels_N, logits_NK.shape[1]).to(logits_NK.dtype)
    if mixture is not None:
        others_NK = F.one_hot(mixture.labels_N, logits_NK.shape[1]).to(logits_NK.dtype)
        own_N1 = mixture.shares_N[:, None]
        targets_NK = own_N1 * targets_NK + (-own_N1 + 1) * others_NK  # DirectML has no kernel for lerp
    weights_N = None if weights_K is None else targets_NK @ weights_K
    if label_smoothing:
        targets_NK = targets_NK * (1 - label_smoothing) + label_smoothing / logits_NK.shape[1]
    losses_N = of_targets(logits_NK if shift_K is None else logits_NK + shift_K, targets_NK)
    return (losses_N if weights_N is None else losses_N * weights_N).mean()


def disagreement(logits_VNK: torch.Tensor) -> torch.Tensor:
    """Return how much the answers to V views of an image differ, mean over images: 0 where they are the same.

    It is their Jensen-Shannon divergence, in nats: the mean Kullback-Leibler divergence of each from the mean of all
    (Hendrycks et al. 2020, "AugMix", whose code has the same bound of 1e-7 under the logarithm).
    """
    logs_VNK = F.log_softmax(logits_VNK, 2)
    shares_VNK = logs_VNK.exp()
    mean_NK = shares_VNK.mean(0).clamp_min(1e-7).log()
    return (shares_VNK * (logs_VNK - mean_NK)).sum(2).mean()


def class_weights(counts_K: NDArray[np.int64], beta: float) -> NDArray[np.float64]:
    """Return weights 1 / E with E = (1 - beta^n) / (1 - beta), the effective number of n images; their sum is K.

    Cui et al. 2019, "Class-balanced loss based on effective number of samples".
    """
    weights_K = (1 - beta) / (1 - np.power(beta, counts_K.astype(np.float64)))
    scaled_K: NDArray[np.float64] = weights_K * len(counts_K) / weights_K.sum()
    return scaled_K


def _cross_entropy(logits_NK: torch.Tensor, targets_NK: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits_NK, targets_NK, reduction="none")


def _binary(logits_NK: torch.Tensor, targets_NK: torch.Tensor, *, threshold: float | None) -> torch.Tensor:
    """Return the binary cross entropy of every class, summed (Wightman et al. 2021, "ResNet strikes back").

    timm's default is the mean over classes instead, which divides gradients by K; the sum leaves learning rates as
    they are for cross entropy.
    """
    if threshold is not None:
        targets_NK = (targets_NK > threshold).to(targets_NK.dtype)
    return F.binary_cross_entropy_with_logits(logits_NK, targets_NK, reduction="none").sum(1)


def _focal(logits_NK: torch.Tensor, targets_NK: torch.Tensor, *, gamma: float) -> torch.Tensor:
    """Return -(1 - p)^gamma log p of the label, by the shares of several (Lin et al. 2017, over a softmax)."""
    logs_NK = F.log_softmax(logits_NK, 1)
    # expm1 keeps digits where p is nearly 1; the clamp keeps the gradient of the power finite where it is 1.
    missing_NK = (-torch.expm1(logs_NK)).clamp_min(1e-12)
    return -(targets_NK * missing_NK.pow(gamma) * logs_NK).sum(1)
