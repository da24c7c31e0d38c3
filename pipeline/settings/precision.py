"""The precisions of a run."""

from typing import Literal

from pipeline.errors import ConfigError

Precision = Literal["fp32", "tf32", "bf16"]
"""fp32 multiplies as IEEE 754 says, on every device; tf32 rounds factors to 10 bits on GPUs; bf16 is autocast."""


def check_cpu_precision(precision: Precision) -> None:
    """Raise ConfigError for a precision that CPUs do not have."""
    if precision == "tf32":
        raise ConfigError.one(
            "compute.precision", "tf32 needs NVIDIA GPUs, and the run would compute on CPUs", "use fp32, or bf16"
        )
