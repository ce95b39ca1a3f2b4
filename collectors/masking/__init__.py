"""Views through which an audience reads a database with its sensitive columns masked; PostgreSQL enforces it.

`treatment` decides how a column is seen, `expressions` writes that in SQL, `planning` says what a database lacks,
`install` runs it. Privileges are the boundary: an audience has none on the tables, only on the views.
"""
