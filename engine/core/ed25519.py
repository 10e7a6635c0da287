"""Whether 32 bytes are an Ed25519 public key somebody can have: a point of the curve, not of small order.

Libraries take any 32 bytes and fail only when a signature is checked; and under a point of small order
anybody can make signatures. RFC 8032, 5.1.3. Not constant in time: public keys are public.
"""

from __future__ import annotations

KEY_BYTES = 32
_P = 2**255 - 19
_D = -121665 * pow(121666, _P - 2, _P) % _P
_ROOT_OF_MINUS_ONE = pow(2, (_P - 1) // 4, _P)


def is_public_key(key: bytes) -> bool:
    """A canonical encoding of a point whose order is not 1, 2, 4 or 8."""
    if len(key) != KEY_BYTES:
        return False
    number = int.from_bytes(key, "little")
    sign, y = number >> 255, number & (1 << 255) - 1
    if y >= _P:
        return False
    x = _x_of(y)
    if x is None or (x == 0 and sign):
        return False
    return not _is_of_small_order(x, y)


def _x_of(y: int) -> int | None:
    """One of the two x with -x^2 + y^2 = 1 + d x^2 y^2; None where there is none."""
    square = (y * y - 1) * pow(_D * y * y + 1, _P - 2, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if x * x % _P != square:
        x = x * _ROOT_OF_MINUS_ONE % _P
    return x if x * x % _P == square else None


def _is_of_small_order(x: int, y: int) -> bool:
    """Whether eight times the point is the neutral one, (0, 1)."""
    for _ in range(3):
        product = _D * x * x % _P * y % _P * y % _P
        x, y = (
            2 * x * y * pow(1 + product, _P - 2, _P) % _P,
            (y * y + x * x) * pow(1 - product, _P - 2, _P) % _P,
        )
    return (x, y) == (0, 1)
