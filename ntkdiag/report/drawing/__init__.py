"""How any figure is drawn: style, axes, the list of figures, and files."""
