"""The fake customer display: two lines of twenty, in ESC/POS or CD5220."""
