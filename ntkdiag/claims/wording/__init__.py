"""Numbers and effects in words: the plain answer, and the names and numbers in sentences and tables."""
