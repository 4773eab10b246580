"""What a model does with some of its features hidden: every coalition or a sample of them, and what follows from them."""
