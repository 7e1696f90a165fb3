#!/bin/sh
# Makes the keys, certificates and signatures beside it with OpenSSL, so that another implementation's output is what
# the tests of auth/ check against. They are for tests only. Run again only to change what there is: the output differs
# each time.
set -eu
cd "$(dirname "$0")"
printf 'the octets that both ends sign' > message.bin

openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out rsa2048.pem
openssl rsa -in rsa2048.pem -traditional -out rsa2048-pkcs1.pem
openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:1024 -out rsa1024.pem
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out p256.pem
openssl ec -in p256.pem -out p256-sec1.pem
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out p384.pem
openssl ec -in p384.pem -out p384-sec1.pem
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-521 -out p521.pem
openssl genpkey -algorithm ED25519 -out ed25519.pem
openssl pkcs8 -topk8 -in p256.pem -passout pass:secret -out encrypted.pem

for key in rsa2048 rsa1024 p256 p384 p521; do
    openssl req -new -x509 -key "$key.pem" -days 36500 -sha256 -subj "/C=CH/O=Ropewalk tests/CN=$key" \
        -addext "subjectAltName=DNS:$key.example.com" -addext "basicConstraints=critical,CA:FALSE" -out "$key-cert.pem"
done

sign() { openssl dgst "-$1" -sign "$2.pem" -out "$3" message.bin; }
for hash in sha1 sha256 sha384 sha512; do
    sign "$hash" rsa2048 "rsa-pkcs1-$hash.sig"
    sign "$hash" rsa1024 "rsa1024-pkcs1-$hash.sig"
    sign "$hash" p256 "p256-$hash.sig"
    sign "$hash" p384 "p384-$hash.sig"
    openssl dgst "-$hash" -sign rsa2048.pem -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest \
        -out "rsa-pss-$hash.sig" message.bin
done
rm -f p256-sha1.sig p384-sha1.sig rsa-pss-sha1.sig rsa1024-pkcs1-sha1.sig rsa1024-pkcs1-sha384.sig \
    rsa1024-pkcs1-sha512.sig
