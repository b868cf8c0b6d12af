"""Small networks, a file a family of operations; `cases` is the table of all of them."""
