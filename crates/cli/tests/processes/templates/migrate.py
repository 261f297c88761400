"""Adds a column to the table of users, or removes it: migrate.py up|down DATABASE COLUMN."""

import sqlite3
import sys

action, database, column = sys.argv[1:]
sql = {"up": f"ALTER TABLE users ADD COLUMN {column} TEXT DEFAULT 'none'", "down": f"ALTER TABLE users DROP COLUMN {column}"}
with sqlite3.connect(database) as connection:
    connection.execute(sql[action])
