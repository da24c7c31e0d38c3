"""The precisions of a run."""

from typing import Literal

Precision = Literal["fp32", "tf32", "bf16"]
"""fp32 multiplies as IEEE 754 says, on every device; tf32 rounds factors to 10 bits on GPUs; bf16 is autocast."""
