"""What several predictions of the same voxels agree on, and how much they differ."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from medkit._core import check

from ._activation import Activation, entropy, probabilities
from ._dropout import evaluated, seeded
from ._test_time_augmentation import view_scores, views_for
from ._view import View

Predictor = Callable[[nn.Module, Tensor], Tensor]
"""How a network sees a volume: takes both, returns the logits of every voxel."""


class Uncertainty(NamedTuple):
    """The mean of several predictions and the spread around it.

    Entropies are in nats: per voxel, ``(batch, *spatial)``, for a softmax, and per channel,
    ``(batch, num_classes, *spatial)``, for a sigmoid.

    Attributes:
        mean: Mean probability of each class.
        variance: Variance of the probability of each class over the predictions (population).
        predictive_entropy: Entropy of the mean: the whole uncertainty.
        expected_entropy: Mean of the entropies: what every single prediction is unsure of, the
            noise of the data (aleatoric).
        mutual_information: Their difference: what the predictions disagree on, the part that
            more training data could remove (epistemic). Zero or more.
    """

    mean: Float[Tensor, "batch num_classes *spatial"]
    variance: Float[Tensor, "batch num_classes *spatial"]
    predictive_entropy: Float[Tensor, "batch ..."]
    expected_entropy: Float[Tensor, "batch ..."]
    mutual_information: Float[Tensor, "batch ..."]


class PredictiveMoments:
    r"""Running moments of predictions, in memory that does not grow with their number.

    .. math::
        \bar p = \tfrac{1}{S}\sum_s p_s, \quad
        \tfrac{1}{S}\sum_s (p_s - \bar p)^2, \quad
        H[\bar p], \quad \tfrac{1}{S}\sum_s H[p_s], \quad
        I = H[\bar p] - \tfrac{1}{S}\sum_s H[p_s]

    Use it where predictions come from a source of your own; ``predictive_uncertainty`` and
    ``mc_dropout`` are made of it. Mean and variance are updated as by Welford, so that a small
    spread around a large mean is exact.

    Args:
        activation: What made the probabilities: "softmax", classes that exclude each other, or
            "sigmoid", channels that decide on their own.

    Example:
        >>> import torch
        >>> moments = PredictiveMoments()
        >>> for p in (0.2, 0.6):
        ...     moments.update(torch.tensor([[[1 - p], [p]]]))
        >>> print(f"{moments.compute().mean[0, 1, 0]:.4f}")
        0.4000
        >>> print(f"{moments.compute().mutual_information.item():.4f}")
        0.0863

    References:
        B. P. Welford, "Note on a method for calculating corrected sums of squares and products",
        Technometrics 4, 1962. N. Houlsby et al., "Bayesian Active Learning for Classification and
        Preference Learning", arXiv:1112.5745, 2011, equation 2.
    """

    def __init__(self, *, activation: Activation = "softmax") -> None:
        check.one_of("activation", activation, ("softmax", "sigmoid"))
        self.activation: Activation = activation
        self.num_samples: int = 0
        self._mean = self._squares = self._entropy = torch.empty(0)

    def update(self, probability: Float[Tensor, "batch num_classes *spatial"]) -> None:
        """Take in one prediction.

        Args:
            probability: Probability of each class; half precision is widened to float32.

        Raises:
            ValueError: If its shape differs from the first one's.
        """
        p = probability.to(torch.promote_types(probability.dtype, torch.float32))
        if not self.num_samples:
            self._mean, self._squares = torch.zeros_like(p), torch.zeros_like(p)
            self._entropy = torch.zeros_like(entropy(p, self.activation))
        elif p.shape != self._mean.shape:
            rule = f"of shape {tuple(self._mean.shape)} as before"
            raise check.fail("probability", rule, f"shape {tuple(p.shape)}")
        self.num_samples += 1
        difference = p - self._mean
        self._mean += difference / self.num_samples
        self._squares += difference.mul_(p - self._mean)
        self._entropy += (entropy(p, self.activation) - self._entropy) / self.num_samples

    def compute(self) -> Uncertainty:
        """Return mean, variance and entropies of the predictions so far.

        Raises:
            ValueError: If there was none.
        """
        if not self.num_samples:
            raise check.fail("PredictiveMoments", "updated at least once before compute()", "none")
        whole = entropy(self._mean, self.activation)
        return Uncertainty(
            self._mean.clone(),
            self._squares / self.num_samples,
            whole,
            self._entropy.clone(),
            (whole - self._entropy).clamp_(min=0),
        )


def predictive_uncertainty(
    inputs: Shaped[Tensor, "batch channel *spatial"],
    models: nn.Module | Sequence[nn.Module],
    *,
    predictor: Predictor | None = None,
    views: Sequence[View] | None = (View(),),
    dropout_samples: int = 0,
    activation: Activation = "softmax",
    seed: int = 0,
) -> Uncertainty:
    r"""Return mean and uncertainty over networks, views and dropout, all in one pass.

    The predictions are all combinations of ``models``, ``views`` and draws of dropout. They are
    folded into running sums one by one, so that memory does not grow with their number; what
    comes out equals the formulas of ``PredictiveMoments`` over all of them stacked.

    Use it for an ensemble, for test-time augmentation, for Monte Carlo dropout, or for any two or
    three together. Networks are put in evaluation mode, and each module gets back the mode it
    had; buffers such as the statistics of batch normalisation are not touched. No gradient is
    recorded, and the global random state is left as it was.

    Args:
        inputs: Volumes of one size.
        models: Networks that return logits; one, or the members of an ensemble.
        predictor: How a network sees the volumes, for those that take windows:
            ``lambda network, x: sliding_window_inference(x, network, roi_size=96)``. Every window
            then has a draw of its own. None calls the network.
        views: Ways to look at the volumes, such as ``flip_views((0, 1, 2))``; by default as they
            are. None takes all combinations of flips.
        dropout_samples: Draws of dropout for each network and view; 0 leaves dropout off.
        activation: What makes probabilities of the logits.
        seed: Seed of the draws.

    Raises:
        ValueError: If there is no network or no view, or draws of dropout are asked of networks
            without a dropout module of p > 0.

    Example:
        >>> import torch
        >>> network = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Conv2d(1, 2, 1))
        >>> image = torch.ones(1, 1, 8, 8)
        >>> result = predictive_uncertainty(image, network, views=None, dropout_samples=5)
        >>> result.mean.shape, result.mutual_information.shape
        (torch.Size([1, 2, 8, 8]), torch.Size([1, 8, 8]))

    References:
        Y. Gal, Z. Ghahramani, "Dropout as a Bayesian Approximation: Representing Model
        Uncertainty in Deep Learning", ICML, 2016, section 4. B. Lakshminarayanan, A. Pritzel,
        C. Blundell, "Simple and Scalable Predictive Uncertainty Estimation using Deep
        Ensembles", NeurIPS, 2017, section 2.4. G. Wang et al., "Aleatoric uncertainty estimation
        with test-time augmentation", Neurocomputing 338, 2019, section 3.2.
    """
    members = [models] if isinstance(models, nn.Module) else list(models)
    if not members:
        raise check.fail("models", "at least one network", members)
    draws = check.integer("dropout_samples", dropout_samples, minimum=0)
    chosen = views_for(inputs, views)
    moments = PredictiveMoments(activation=activation)
    with evaluated(members, dropout=draws > 0), seeded(seed):
        for scores in _samples(inputs, members, predictor or _call, chosen, max(1, draws)):
            moments.update(probabilities(scores, activation))
    return moments.compute()


def mc_dropout(
    inputs: Shaped[Tensor, "batch channel *spatial"],
    model: nn.Module,
    *,
    num_samples: int = 20,
    predictor: Predictor | None = None,
    activation: Activation = "softmax",
    seed: int = 0,
) -> Uncertainty:
    """Return mean and uncertainty over draws of a network's dropout.

    Only dropout modules are active: batch normalisation uses its running statistics and does not
    change them, and each module gets back the mode it had. A network whose dropout is called as a
    function, or has none, is refused: every draw would be the same.

    Args:
        inputs: Volumes of one size.
        model: Network that returns logits and holds at least one dropout module of p > 0.
        num_samples: Number of draws.
        predictor: How the network sees the volumes, see ``predictive_uncertainty``; None calls it.
        activation: What makes probabilities of the logits.
        seed: Seed of the draws.

    Raises:
        ValueError: If the network has no dropout module of p > 0.

    Example:
        >>> import torch
        >>> network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 1), torch.nn.Dropout2d(0.2))
        >>> mc_dropout(torch.ones(1, 1, 4, 4), network, num_samples=3).variance.shape
        torch.Size([1, 4, 4, 4])

    References:
        Y. Gal, Z. Ghahramani, "Dropout as a Bayesian Approximation: Representing Model
        Uncertainty in Deep Learning", ICML, 2016, section 4.
    """
    return predictive_uncertainty(
        inputs,
        model,
        predictor=predictor,
        dropout_samples=check.integer("num_samples", num_samples, minimum=1),
        activation=activation,
        seed=seed,
    )


def _samples(
    inputs: Tensor,
    members: Sequence[nn.Module],
    predictor: Predictor,
    views: Sequence[View],
    draws: int,
) -> Iterator[Tensor]:
    """Yield the logits of each network, draw and view."""
    for member in members:
        for _ in range(draws):
            yield from view_scores(inputs, lambda x, m=member: predictor(m, x), views)


def _call(network: nn.Module, x: Tensor) -> Tensor:
    return network(x)
