"""Pictures with one grammar, and what every page of the book needs."""
