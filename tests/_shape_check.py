"""The run-time check of shapes and types that the tests put on every function of medkit.

It follows PEP 484 in that an ``int`` is a ``float``, as every type checker does; bare
``beartype.beartype`` does not.
"""

from beartype import BeartypeConf, beartype

checker = beartype(conf=BeartypeConf(is_pep484_tower=True))
