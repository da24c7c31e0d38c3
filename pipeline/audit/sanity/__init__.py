"""Sanity checks of methods (Adebayo et al. 2018): does a map change when the model, or the class, does?"""

from pipeline.audit.sanity.check import check_sanity

__all__ = ["check_sanity"]
