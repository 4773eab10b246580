"""What a teacher takes along: the book as one PDF, slides, handouts, notebooks, an assignment that grades itself.

All of it is made from the built pages and the notebooks, by ``python -m crossexplain pdf`` and ``python -m crossexplain kit``.
"""
