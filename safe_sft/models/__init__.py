"""What the package needs to know of a `transformers` or PEFT model, and of the folder that holds it."""
