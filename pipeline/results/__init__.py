"""Reads a run: SQL, atlases of several runs, verification, status, and the source images."""
