"""The papers' tables and figures: which runs they are made of, carrying those out, and what comes of them."""
