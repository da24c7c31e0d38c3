"""Reads runs: SQL queries on one or several runs, verification, status, and the source images."""
