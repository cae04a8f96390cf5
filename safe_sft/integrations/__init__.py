"""The safety terms inside other training tools, by the interfaces that these have for it."""
