"""Contract checks that a part, yours or ours, can be held to."""

from ._check_loss import check_loss, loss_laws, loss_report
from ._check_metric import check_metric, metric_laws, metric_report
from ._check_module import check_module, module_laws, module_report
from ._check_reader import check_reader, reader_laws, reader_report
from ._check_transform import check_transform, transform_laws, transform_report
from ._close import assert_close
from ._contract import ContractError, Report, Verdict

__all__ = [
    "ContractError",
    "Report",
    "Verdict",
    "assert_close",
    "check_loss",
    "check_metric",
    "check_module",
    "check_reader",
    "check_transform",
    "loss_laws",
    "loss_report",
    "metric_laws",
    "metric_report",
    "module_laws",
    "module_report",
    "reader_laws",
    "reader_report",
    "transform_laws",
    "transform_report",
]
