"""Made from proto/tendermint by proto/generate.py; not edited by hand."""
