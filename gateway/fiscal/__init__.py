"""The sale: claim, write ahead, sign, commit, replay; and what happens when an answer is lost."""
