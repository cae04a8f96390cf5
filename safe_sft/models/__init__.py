"""What the package needs to know of a `transformers` or PEFT model, and of the folders they are kept in."""
