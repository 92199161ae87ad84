"""Which parts of a text made the model say that, by many methods, each with how far it can be trusted."""
