"""MU-Mis: lower the input sensitivity of the true logit against other logits."""
