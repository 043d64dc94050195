"""The one door to packages that medkit can do without."""

import importlib
from types import ModuleType


def require(name: str, *, extra: str) -> ModuleType:
    """Import the optional package ``name``, or say how to install or mend it.

    Call it inside the function that needs the package. Both failures raise ``ImportError``: a
    missing package names the extra that brings it, a broken one the error it broke with.

    Args:
        name: Module to import, dots allowed, e.g. ``"matplotlib.pyplot"``.
        extra: The extra of medkit that installs it, e.g. ``"plot"``.
    """
    package = name.partition(".")[0]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise _broken(package, error) from error
        raise ImportError(
            f"{package} is needed here and is not installed; run: pip install 'medkit[{extra}]'"
        ) from error
    except Exception as error:  # a broken binary package may raise anything, e.g. RuntimeError
        raise _broken(package, error) from error


def is_available(name: str) -> bool:
    """Return whether the optional package ``name`` can be imported here."""
    try:
        importlib.import_module(name)
    except Exception:  # noqa: BLE001  a broken binary package may raise anything
        return False
    return True


def _broken(package: str, error: Exception) -> ImportError:
    return ImportError(
        f"{package} is installed but fails to import ({type(error).__name__}: {error}); "
        f"reinstall it in a build that matches this environment"
    )
