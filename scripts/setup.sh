#!/usr/bin/env bash
# Installs what this machine lacks for a purpose, and nothing else, on Debian 12, Ubuntu 22.04 and their successors:
#
#   scripts/setup.sh build      compile everything, the window included
#   scripts/setup.sh headless   compile and run the demo without a window
#   scripts/setup.sh demo       compile and run the demo with the window
#   scripts/setup.sh test       all of it, and what the tests use: strongSwan, dnsmasq, tshark, Xvfb, ...
#
# It says what it does, asks nothing, and may be run again. Packages need root: as another user it uses sudo.
set -euo pipefail
cd "$(dirname "$0")/.."

purpose=${1:-test}
say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null; then sudo "$@"
    else fail "needs root for: $* (run it as root, or install sudo)"
    fi
}

compile=(build-essential pkg-config curl ca-certificates)
window=(libwebkit2gtk-4.1-dev libgtk-3-dev libayatana-appindicator3-dev librsvg2-dev)
run=(iproute2 nftables iputils-ping curl)
tests=(strongswan-swanctl charon-systemd libcharon-extra-plugins libcharon-extauth-plugins
    libstrongswan-standard-plugins libstrongswan-extra-plugins dnsmasq-base kea-dhcp4-server bird2 tcpdump tshark openssl
    xvfb xauth x11-utils dbus dbus-x11 gnome-keyring libsecret-1-0 libsecret-tools polkitd webkit2gtk-driver
    at-spi2-core fonts-dejavu-core python3-dbus python3-gi imagemagick xdotool iperf3)

case $purpose in
    build) packages=("${compile[@]}" "${window[@]}"); node=yes ;;
    headless) packages=("${compile[@]}" "${run[@]}"); node=no ;;
    demo) packages=("${compile[@]}" "${window[@]}" "${run[@]}"); node=yes ;;
    test) packages=("${compile[@]}" "${window[@]}" "${run[@]}" "${tests[@]}"); node=yes ;;
    *) fail "unknown purpose '$purpose': build, headless, demo or test" ;;
esac

installed() { dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q '^install ok installed$'; }

install_packages() {
    command -v apt-get >/dev/null || {
        say "no apt-get here; these packages (Debian's names) must be there: ${packages[*]}"
        return
    }
    local missing=() package
    for package in "${packages[@]}"; do
        # Ubuntu 22.04 has polkitd's program in policykit-1.
        if [ "$package" = polkitd ] && [ -z "$(apt-cache madison polkitd 2>/dev/null)" ] && installed policykit-1; then
            continue
        fi
        installed "$package" || missing+=("$package")
    done
    if [ ${#missing[@]} = 0 ]; then
        say "packages: nothing is missing"
        return
    fi
    say "installing packages: ${missing[*]}"
    # Package and service of what the tests start themselves.
    local services=("charon-systemd strongswan" "kea-dhcp4-server kea-dhcp4-server" "bird2 bird") fresh=() pair
    for pair in "${services[@]}"; do
        installed "${pair% *}" || fresh+=("$pair")
    done
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        -o DPkg::Lock::Timeout=300 "${missing[@]}" >/dev/null
    # The tests start their own; a service that listens on this machine is nobody's wish.
    for pair in "${fresh[@]}"; do
        if installed "${pair% *}" && [ -d /run/systemd/system ]; then
            say "switching off the service ${pair#* } that came with the package"
            as_root systemctl disable --now "${pair#* }.service" >/dev/null 2>&1 || true
        fi
    done
}

install_rust() {
    export PATH="$HOME/.cargo/bin:$PATH"
    if ! command -v cargo >/dev/null; then
        say "installing the Rust toolchain with rustup into ~/.cargo"
        curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs |
            sh -s -- -y --quiet --no-modify-path --profile minimal --component clippy --component rustfmt
    fi
    local wanted version
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    version=$(rustc --version | cut -d' ' -f2)
    if [ "$(printf '%s\n%s\n' "$wanted" "$version" | sort -V | head -1)" != "$wanted" ]; then
        command -v rustup >/dev/null || fail "rustc $version is older than $wanted; install a newer one, for example with rustup"
        say "rustc $version is older than $wanted: updating the stable toolchain"
        rustup update stable
    fi
}

node_is_new_enough() {
    command -v node >/dev/null && command -v npm >/dev/null &&
        node -e 'const [a, b] = process.versions.node.split(".").map(Number);
                 process.exit(a > 22 || (a === 22 && b >= 12) || (a === 20 && b >= 19) ? 0 : 1)'
}

install_node() {
    export PATH="$PWD/target/tools/node_modules/.bin:$PATH"
    if ! node_is_new_enough; then
        if ! command -v npm >/dev/null; then
            say "installing packages: nodejs npm"
            as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
                -o DPkg::Lock::Timeout=300 nodejs npm >/dev/null
        fi
        if ! node_is_new_enough; then
            say "node is too old for the front end's tools: fetching a newer one into target/tools"
            npm install --prefix target/tools --no-audit --no-fund --silent node@22
        fi
    fi
    # npm writes this file last; when it is newer than the lock file the modules are complete.
    if [ ! ui/node_modules/.package-lock.json -nt ui/package-lock.json ]; then
        say "installing the front end's modules (npm ci)"
        (cd ui && npm ci --no-audit --no-fund)
    else
        say "front end's modules: nothing is missing"
    fi
}

install_packages
install_rust
if [ $node = yes ]; then install_node; fi
if [ "$purpose" = test ]; then
    # `ip netns exec` gives a namespace its own name servers by a mount over this file, which has to be there for that.
    if [ ! -e /etc/resolv.conf ]; then as_root touch /etc/resolv.conf; fi
    say "DNS managers for the tests are unpacked into target/test-tools, not installed"
    as_root helper/net/tests/fetch-dns-managers.sh
fi
say "ready for: $purpose"
