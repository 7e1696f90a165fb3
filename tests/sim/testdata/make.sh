#!/bin/sh
# Makes the authorities, certificates and keys beside it with OpenSSL. They are for tests only, and fixed so that the same
# seed gives the same bytes. Run again only to change what there is: the output differs each time.
set -eu
cd "$(dirname "$0")"

p256() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }
rsa() { openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$1"; }

authority() { # file, name, more options of openssl req
    file=$1 name=$2
    shift 2
    openssl req -new -x509 -days 36500 -sha256 -subj "/O=Ropewalk tests/CN=$name" "$@" \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign -out "$file"
}
leaf() { # file without ending, alternative name, extended usage
    openssl req -new -key "$1-key.pem" -subj "/O=Ropewalk tests/CN=$1" -out leaf.csr
    {
        printf 'basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n'
        printf 'subjectAltName=%s\nextendedKeyUsage=%s\n' "$2" "$3"
    } > leaf.ext
    openssl x509 -req -in leaf.csr -CA intermediate.pem -CAkey intermediate-key.pem -days 36500 -sha256 \
        -extfile leaf.ext -set_serial "0x$(openssl rand -hex 8)" -out "$1.pem"
    cat intermediate.pem >> "$1.pem"
}

p256 root-key.pem
authority root.pem "Simulated root" -key root-key.pem
p256 other-key.pem
authority other.pem "Another root" -key other-key.pem
p256 intermediate-key.pem
authority intermediate.pem "Simulated issuer" -key intermediate-key.pem -CA root.pem -CAkey root-key.pem
for kind in ecdsa rsa; do
    if [ $kind = rsa ]; then rsa gateway-rsa-key.pem; rsa client-rsa-key.pem
    else p256 gateway-ecdsa-key.pem; p256 client-ecdsa-key.pem; fi
    leaf gateway-$kind DNS:gateway.sim.test serverAuth
    leaf client-$kind email:client@sim.test clientAuth
done
rm -f leaf.csr leaf.ext root-key.pem other-key.pem intermediate-key.pem
