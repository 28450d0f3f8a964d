"""Layers whose every result has one value, forwards and backwards, and the graphs made of them.

Protocol section 3. Nothing here knows of data or walks; of a chain, only its bits and its seed.
"""
