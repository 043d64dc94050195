"""The contract of transforms: every law, held against one transform."""

from collections.abc import Callable, Collection, Mapping

from medkit._core import check

from ._contract import Report, examine
from ._transform_laws import LAWS, TransformSubject


def transform_laws() -> dict[str, str]:
    """Return the laws of transforms: each name with what it says, in the order they are tried.

    Example:
        >>> transform_laws()["entries_are_kept"]
        'Every entry of a sample is in the result.'
    """
    return {law.name: law.sentence for law in LAWS}


def transform_report(
    transform: Callable[..., Mapping[str, object]],
    *,
    spatial_dims: int = 3,
    channels: int = 1,
    laws: Collection[str] | None = None,
    excuses: Mapping[str, str] | None = None,
) -> Report:
    """Hold a transform to the laws of ``check_transform`` and return the verdicts.

    Args:
        transform: As in ``check_transform``.
        spatial_dims: As in ``check_transform``.
        channels: As in ``check_transform``.
        laws: As in ``check_transform``.
        excuses: As in ``check_transform``.

    Returns:
        One verdict for each law.

    Raises:
        ValueError: If ``laws`` or ``excuses`` hold a name that does not exist.

    Example:
        >>> def forgets_the_label(sample, generator):
        ...     return {**sample, "image": sample["image"].flip(-1)}
        >>> "changes_are_undone" in transform_report(forgets_the_label).not_applicable
        True
    """
    check.one_of("spatial_dims", spatial_dims, (2, 3))
    subject = TransformSubject(transform, spatial_dims, channels)
    name: str = getattr(transform, "__name__", type(transform).__name__)
    return examine(name, LAWS, subject, chosen=laws, excuses=excuses)


def check_transform(
    transform: Callable[..., Mapping[str, object]],
    *,
    spatial_dims: int = 3,
    channels: int = 1,
    laws: Collection[str] | None = None,
    excuses: Mapping[str, str] | None = None,
) -> Report:
    """Raise unless a transform of samples obeys every law of transforms.

    A law is a sentence that must hold for any transform, such as "image and label stay together".
    It is tried with several generators, so give random transforms a probability of 1.

    Args:
        transform: Takes a sample (a mapping with tensors ``image``, ``label`` and, in 3D,
            ``affine``) and ``generator=``, a ``numpy.random.Generator``; returns a new sample.
        spatial_dims: 2 or 3.
        channels: Channels of the image, whose values lie in [0, 1].
        laws: Names of the laws to try; None tries all.
        excuses: Reasons, by law, for laws that are known not to hold. They are tried all the
            same: an excuse for a law that holds is a violation.

    Returns:
        One verdict for each law.

    Raises:
        ContractError: If a law is violated; it is an ``AssertionError`` that lists all of them.
        ValueError: If ``laws`` or ``excuses`` hold a name that does not exist.

    Example:
        >>> from medkit.transforms import RandomFlip
        >>> check_transform(RandomFlip(probability=1.0)).violations
        {}
    """
    report = transform_report(
        transform, spatial_dims=spatial_dims, channels=channels, laws=laws, excuses=excuses
    )
    report.raise_if_violated()
    return report
