"""Relations between words: sentences in which it is known what belongs together, and which heads find it."""
