"""Pure mathematics of no one package: tensors in, tensors out."""
