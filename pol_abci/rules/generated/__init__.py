"""Made from proto/pol/v1 by proto/generate.py; not edited by hand."""
