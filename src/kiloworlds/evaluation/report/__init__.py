"""One page about one run."""

from kiloworlds.evaluation.report.page import write_report

__all__ = ["write_report"]
