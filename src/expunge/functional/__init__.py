"""Pure tensor mathematics: tensors in, tensors out, shapes in the types, no I/O."""
