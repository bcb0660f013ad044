"""Training: tokenizer, then dynamics."""
