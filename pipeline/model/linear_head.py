"""Recognises the head of the original CAM: global average pooling and one linear layer.

Legend: B rows, K channels, N classes.
"""

from torch import Tensor, nn

from pipeline.model.evidence import Evidence


def linear_head(model: nn.Module, evidence: Evidence, tolerance: float) -> Tensor | None:
    """Return the class weights (N, K) if average pooling and one linear layer reproduce the logits, else None.

    Args:
        model: the classifier.
        evidence: activations of the layer before the head, and logits.
        tolerance: largest difference of a logit, relative to the largest logit.
    """
    pooled_BK = evidence.acts_BKuv.mean((2, 3))
    shape = (evidence.logits_BN.shape[1], pooled_BK.shape[1])
    scale = max(float(evidence.logits_BN.abs().max()), 1e-6)
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.weight.shape == shape:
            weights_NK = module.weight.detach().float()
            logits_BN = pooled_BK @ weights_NK.T + (0 if module.bias is None else module.bias.detach().float())
            if float((logits_BN - evidence.logits_BN).abs().max()) <= tolerance * scale:
                return weights_NK
    return None
