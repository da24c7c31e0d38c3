"""Sanity checks of saliency methods (Adebayo et al. 2018): maps must change with the weights and with the class."""

from pipeline.audit.sanity.check import check_sanity

__all__ = ["check_sanity"]
