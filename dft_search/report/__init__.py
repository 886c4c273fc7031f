"""What a study found: statistics, verdict, terminal report and HTML page, from the study's folder alone."""

from dft_search.report.build import build_report
from dft_search.report.comparison import Arm, ArmRun, compare_arms
from dft_search.report.confirmation import confirm_study
from dft_search.report.export import write_figures
from dft_search.report.terminal import print_report

__all__ = ["Arm", "ArmRun", "build_report", "compare_arms", "confirm_study", "print_report", "write_figures"]
