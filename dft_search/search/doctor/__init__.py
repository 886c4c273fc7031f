"""``doctor``: what stands in the way of a study, on this machine and in what a study has left behind."""

from dft_search.search.doctor.examination import doctor

__all__ = ["doctor"]
