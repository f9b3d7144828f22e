"""Mathematics that two or more packages share: tensors in, tensors out."""
