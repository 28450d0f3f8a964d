"""The ABCI application, one module a connection, and the verifier that the first two share."""
