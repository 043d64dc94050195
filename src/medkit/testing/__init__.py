"""Contract checks that a part, yours or ours, can be held to."""

from medkit.testing._check_loss import LOSS_LAWS, check_loss, loss_report
from medkit.testing._check_module import MODULE_LAWS, check_module, module_report
from medkit.testing._close import assert_close
from medkit.testing._contract import ContractError, Report, Verdict

__all__ = [
    "LOSS_LAWS",
    "MODULE_LAWS",
    "ContractError",
    "Report",
    "Verdict",
    "assert_close",
    "check_loss",
    "check_module",
    "loss_report",
    "module_report",
]
