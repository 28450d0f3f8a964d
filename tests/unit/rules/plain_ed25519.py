"""Ed25519 from RFC 8032's formulas in plain integers: slow, and independent of libsodium."""

from __future__ import annotations

import hashlib

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
Point = tuple[int, int]
NEUTRAL: Point = (0, 1)


def find_x(y: int, sign: int) -> int | None:
    """The x of a point with this y and this lowest bit of x, if there is one."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    if (x * x - square) % P:
        return None
    return x if x % 2 == sign else -x % P


def add(left: Point, right: Point) -> Point:
    (x1, y1), (x2, y2) = left, right
    k = D * x1 * x2 * y1 * y2
    x = (x1 * y2 + x2 * y1) * pow(1 + k, -1, P) % P
    return x, (y1 * y2 + x1 * x2) * pow(1 - k, -1, P) % P


def multiply(scalar: int, point: Point) -> Point:
    result = NEUTRAL
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point = add(point, point)
        scalar >>= 1
    return result


def make_base() -> Point:
    y = 4 * pow(5, -1, P) % P
    x = find_x(y, 0)
    assert x is not None
    return x, y


def make_torsion() -> Point:
    """A point of order 8."""
    y = 2
    while True:
        x = find_x(y, 0)
        torsion = multiply(ORDER, (x, y)) if x is not None else NEUTRAL
        if multiply(4, torsion) != NEUTRAL:
            return torsion
        y += 1


BASE = make_base()
TORSION = make_torsion()


def encode(point: Point) -> bytes:
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def decode(data: bytes) -> Point | None:
    """A point from its one encoding; None for any other bytes."""
    number = int.from_bytes(data, "little")
    y, sign = number % 2**255, number >> 255
    x = find_x(y, sign) if y < P else None
    if x is None or (x == 0 and sign):
        return None
    return x, y


def compute_challenge(r: bytes, a: bytes, message: bytes) -> int:
    return int.from_bytes(hashlib.sha512(r + a + message).digest(), "little") % ORDER


def sign(seed: bytes, message: bytes) -> tuple[bytes, bytes]:
    """Public key and signature, as RFC 8032 makes them."""
    digest = hashlib.sha512(seed).digest()
    secret = int.from_bytes(digest[:32], "little") & (2**254 - 8) | 2**254
    a = encode(multiply(secret, BASE))
    nonce = int.from_bytes(hashlib.sha512(digest[32:] + message).digest(), "little") % ORDER
    return a, sign_with(secret, nonce, a, encode(multiply(nonce, BASE)), message)


def sign_with(secret: int, nonce: int, a: bytes, r: bytes, message: bytes) -> bytes:
    """R and S for an encoding of R and A of the caller's making."""
    s = (nonce + compute_challenge(r, a, message) * secret) % ORDER
    return r + s.to_bytes(32, "little")


def is_valid(a: bytes, message: bytes, signature: bytes) -> bool:
    """The chain's rule: S < L, one encoding of A and R, no small order, no cofactor."""
    r, s = signature[:32], int.from_bytes(signature[32:], "little")
    point_a, point_r = decode(a), decode(r)
    if point_a is None or point_r is None or s >= ORDER:
        return False
    if NEUTRAL in (multiply(8, point_a), multiply(8, point_r)):
        return False
    right = add(point_r, multiply(compute_challenge(r, a, message), point_a))
    return multiply(s, BASE) == right
