"""One file a family of figures; each function draws on given axes."""
