"""Extensions of Sphinx that write the reference from the code, set formulas, and check names and links."""
