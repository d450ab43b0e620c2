"""What a person sees of a result: a page, and tables on the terminal."""
