"""Matrices as tiles of a picture that one can zoom: from the whole matrix in one tile down to its entries."""
