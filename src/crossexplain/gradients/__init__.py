"""Views, captured gradients, attributions, the four rounds and the checks before them."""
