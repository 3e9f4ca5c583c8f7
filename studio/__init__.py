"""The page in the browser that app.py starts: what it offers, what its tabs do, what it takes from visitors."""
