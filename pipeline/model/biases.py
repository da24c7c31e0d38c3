"""Biases of modules, which some methods distribute over the image.

Legend: K channels.
"""

from torch import Tensor, nn


def effective_bias(module: nn.Module) -> Tensor | None:
    """Return the constant a module adds to its output: a convolution's bias or a batch norm's shift; else None."""
    if isinstance(module, nn.Conv2d) and module.bias is not None:
        return module.bias.detach().float()
    if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
        scale_K = (module.running_var + module.eps).rsqrt()
        gamma_K = 1.0 if module.weight is None else module.weight.detach()
        beta_K = 0.0 if module.bias is None else module.bias.detach()
        return (beta_K - gamma_K * module.running_mean * scale_K).float()
    return None
