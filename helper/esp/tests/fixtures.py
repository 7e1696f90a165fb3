#!/usr/bin/env python3
"""Writes fixtures.txt: ESP packets built from RFC 4303, 4106, 7634, 3602 and 4868 with OpenSSL's primitives, by nothing
of ours, for sealed.rs to compare with; HMAC-SHA1-96 (RFC 2404) for SAs of groups. Needs the "cryptography" package.
One packet a line:
encr key_bits integ esn spi seq encr_key integ_key next_header inner sealed"""

import hashlib
import hmac
import struct

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

# The hash, octets of its key and of the ICV (RFC 2404, RFC 4868).
HASHES = {
    2: (hashlib.sha1, 20, 12),
    12: (hashlib.sha256, 32, 16),
    13: (hashlib.sha384, 48, 24),
    14: (hashlib.sha512, 64, 32),
}


def octets(count, start):
    return bytes((start + 7 * i) % 256 for i in range(count))


def trailer(inner, block, next_header):
    pad = -(len(inner) + 2) % block
    return inner + bytes(range(1, pad + 1)) + bytes([pad, next_header])


def seal(encr, bits, integ, esn, spi, seq, encr_key, integ_key, next_header, inner):
    header = struct.pack(">II", spi, seq & 0xFFFFFFFF)
    if encr == 12:
        # The IV is free (RFC 3602 3); ours is E(key, sequence number | SPI), see NIST SP 800-38A appendix C.
        nonce = struct.pack(">QQ", seq, spi)
        iv = Cipher(algorithms.AES(encr_key), modes.ECB()).encryptor().update(nonce)
        text = Cipher(algorithms.AES(encr_key), modes.CBC(iv)).encryptor().update(trailer(inner, 16, next_header))
        covered = header + iv + text
        digest, _, length = HASHES[integ]
        high = struct.pack(">I", seq >> 32) if esn else b""
        return covered + hmac.new(integ_key, covered + high, digest).digest()[:length]
    key, salt = encr_key[:-4], encr_key[-4:]
    iv = struct.pack(">Q", seq)
    aad = struct.pack(">IQ", spi, seq) if esn else header
    aead = AESGCM(key) if encr == 20 else ChaCha20Poly1305(key)
    return header + iv + aead.encrypt(salt + iv, trailer(inner, 4, next_header), aad)


def main():
    suites = [(20, 128, 0), (20, 256, 0), (28, 0, 0)]
    suites += [(12, bits, integ) for bits in (128, 256) for integ in (12, 13, 14)]
    suites += [(12, 128, 2), (12, 256, 2)]
    for encr, bits, integ in suites:
        for esn, seq in ((0, 1), (0, 0xFFFFFFFF), (1, 2), (1, 0x1_0000_0007)):
            for length in (20, 61):
                encr_key = octets({12: bits // 8, 20: bits // 8 + 4, 28: 36}[encr], 3)
                integ_key = octets(HASHES[integ][1], 5) if integ else b""
                inner = octets(length, 11)
                next_header = 4 if length == 20 else 41
                spi = 0xC0FFEE01
                packet = seal(encr, bits, integ, esn, spi, seq, encr_key, integ_key, next_header, inner)
                fields = [encr, bits, integ, esn, spi, seq, encr_key.hex(), integ_key.hex() or "-", next_header]
                print(*fields, inner.hex(), packet.hex())


main()
