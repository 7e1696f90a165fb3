#!/usr/bin/env bash
# A whole VPN on one machine: a client with a cable and a phone, each with its NAT router, the reference gateway, and a page
# behind it that only the tunnel reaches. With the window, you click Connect, and may pull the cable; with --headless the
# command line does both, and the script ends by itself with exit code 0 when the page was reached through the tunnel, before
# and after.
#
#   scripts/demo.sh [--headless]
#
# Everything happens in network namespaces; this machine's own network is not touched. Nothing is left behind.
# ROPEWALK_BIN_DIR: use these programs instead of building them.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/target/tools/node_modules/.bin:$HOME/.cargo/bin:$PATH"

headless=no
inside=no
for argument in "$@"; do
    case $argument in
        --headless) headless=yes ;;
        --inside) inside=yes ;; # internal: the second half, as root
        *) printf 'usage: %s [--headless]\n' "$0" >&2; exit 2 ;;
    esac
done

say() { printf 'demo: %s\n' "$*"; }
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }

if [ $inside = no ]; then
    if [ $headless = no ] && [ -z "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ]; then
        fail "there is no display here; run \`make demo-headless\`, which uses the command line instead of the window"
    fi
    if [ -z "${ROPEWALK_BIN_DIR:-}" ]; then
        packages=(-p ropewalk-cli -p ropewalk-helper -p ropewalk-gateway -p ropewalk-lab)
        if [ $headless = yes ]; then
            scripts/setup.sh headless
        else
            scripts/setup.sh demo
            say "building the front end"
            (cd ui && npm run --silent build)
            packages+=(-p ropewalk-app)
        fi
        say "building the programs (the first time takes some minutes)"
        cargo build --locked --bins "${packages[@]}"
        export ROPEWALK_BIN_DIR=${CARGO_TARGET_DIR:-$PWD/target}/debug
    fi
    arguments=(--inside)
    if [ $headless = yes ]; then arguments+=(--headless); fi
    if [ "$(id -u)" = 0 ]; then exec "$0" "${arguments[@]}"; fi
    command -v sudo >/dev/null || fail "namespaces need root: run it as root, or install sudo"
    say "namespaces need root: asking sudo"
    exec sudo --preserve-env=ROPEWALK_BIN_DIR,DISPLAY,WAYLAND_DISPLAY,XAUTHORITY,XDG_RUNTIME_DIR,DBUS_SESSION_BUS_ADDRESS \
        "$0" "${arguments[@]}"
fi

bin=$ROPEWALK_BIN_DIR
prefix=rwdemo$$
work=$(mktemp -d "/tmp/$prefix.XXXXXX")
processes=()
networks=(client router phone gateway server)

cleanup() {
    local status=$? process name
    trap - EXIT INT TERM
    # The window first, the helper before the gateway: it says goodbye.
    for process in $(printf '%s\n' "${processes[@]}" | tac); do
        kill "$process" 2>/dev/null || true
        wait "$process" 2>/dev/null || true
    done
    for name in "${networks[@]}"; do
        ip netns del "$prefix-$name" 2>/dev/null || true
        rm -rf "/etc/netns/$prefix-$name"
    done
    # 130: somebody pressed Ctrl+C, which is how the demo with the window ends.
    if [ $status != 0 ] && [ $status != 130 ]; then
        for name in helper gateway page; do
            if [ -s "$work/$name.log" ]; then
                printf -- '---- the end of %s.log\n' "$name" >&2
                tail -n 30 "$work/$name.log" >&2
            fi
        done
    fi
    rm -rf "$work"
    exit $status
}
trap cleanup EXIT
trap 'exit 130' INT TERM

on() { local name=$1; shift; ip netns exec "$prefix-$name" "$@"; }
start() { # name of the log, namespace, command...
    local log=$1 name=$2
    shift 2
    ip netns exec "$prefix-$name" "$@" >"$work/$log.log" 2>&1 &
    processes+=($!)
}
wait_for() { # seconds, what, command...
    local tries=$(($1 * 20)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        if [ $tries -le 0 ]; then fail "$what did not happen"; fi
        sleep 0.05
    done
}
cli() { ROPEWALK_SOCKET="$work/run/helper.sock" "$bin/ropewalk" "$@"; }

say "run $$"
say "making the networks: client -- router and phone (both NAT) -- gateway -- server"
for name in "${networks[@]}"; do
    ip netns add "$prefix-$name"
    ip -n "$prefix-$name" link set lo up
done
# Numbers of its own for each end: where both have one number, the kernel takes them for one device and tells a pulled cable
# up to a second late.
device_number=10
cable() { # a namespace, b namespace, device in a, device in b
    device_number=$((device_number + 2))
    ip -n "$prefix-$1" link add "$3" index $device_number type veth \
        peer name "$4" index $((device_number + 1)) netns "$prefix-$2"
    ip -n "$prefix-$1" link set "$3" up
    ip -n "$prefix-$2" link set "$4" up
}
address() { ip -n "$prefix-$1" address add "$2" dev "$3"; } # namespace, address, device
cable router client home eth0
cable phone client tether usb0
cable router gateway outside eth0
cable phone gateway outside eth1
cable gateway server lan0 eth0
address client 192.168.178.20/24 eth0
address router 192.168.178.1/24 home
address router 198.51.100.1/24 outside
address client 192.168.42.20/24 usb0
address phone 192.168.42.1/24 tether
address phone 203.0.113.1/24 outside
address gateway 198.51.100.2/24 eth0
address gateway 203.0.113.2/24 eth1
address gateway 10.20.0.1/24 lan0
address server 10.20.0.80/24 eth0
ip -n "$prefix-client" route add default via 192.168.178.1 metric 100
ip -n "$prefix-client" route add default via 192.168.42.1 metric 200
ip -n "$prefix-gateway" route add default via 198.51.100.1
ip -n "$prefix-phone" route add 198.51.100.0/24 via 203.0.113.2
ip -n "$prefix-server" route add default via 10.20.0.1
for name in router phone gateway; do on $name sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'; done
for name in router phone; do
    on $name nft -f - <<'NFT'
table ip demo {
 chain post {
  type nat hook postrouting priority srcnat;
  oifname "outside" masquerade
 }
}
NFT
done
mkdir -p "/etc/netns/$prefix-client"
printf '# the network at home\nnameserver 192.168.178.1\n' >"/etc/netns/$prefix-client/resolv.conf"

say "starting the page behind the gateway, and the gateway"
start page server "$bin/ropewalk-page" 80
# A secret of this run only; whoever reads this file knows no other.
secret=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
umask 077
cat >"$work/gateway.toml" <<TOML
identity = "gateway.demo.test"
pools = ["10.20.99.0/24"]
traffic = ["10.20.0.0/24"]

[listen]
addresses = ["198.51.100.2"]

[[psk]]
identity = "you@demo.test"
secret = "$secret"
TOML
start gateway gateway "$bin/ropewalk-gateway" --config "$work/gateway.toml"
wait_for 10 "the gateway's start" grep -q listening "$work/gateway.log"

say "starting the helper"
mkdir -m 755 "$work/run"
mkdir -m 700 "$work/state" "$work/config"
chmod 711 "$work"
# The machine's own D-Bus must not hear of a namespace's tunnel: DNS goes by the namespace's own resolv.conf.
DBUS_SYSTEM_BUS_ADDRESS="unix:path=$work/no-bus" \
    start helper client "$bin/ropewalk-helper" --no-polkit \
    --runtime-dir "$work/run" --state-dir "$work/state" --config-dir "$work/config"
wait_for 10 "the helper's start" cli profiles

cat >"$work/demo.toml" <<TOML
version = 1
name = "Demo"

[gateway]
address = "198.51.100.2"
identity = "gateway.demo.test"

[auth]
method = "psk"
identity = "you@demo.test"
psk = "$secret"
TOML
say "importing the profile"

two_paths() { [ "$(cli status Demo --json | grep -o '"spi_i": *"[0-9a-f]*"' | sort -u | wc -l)" -ge 2 ]; }
page() { on client curl -sS -m "${1:-3}" http://10.20.0.80/; }

if [ $headless = yes ]; then
    cli import "$work/demo.toml"
    if page 1 >/dev/null 2>&1; then fail "the page can be reached without the tunnel; this demo would prove nothing"; fi
    say "the page behind the gateway cannot be reached yet: good"
    say "ropewalk connect Demo"
    cli connect Demo --wait 30
    say "ropewalk status"
    cli status
    say "ping through the tunnel"
    on client ping -n -c 3 -i 0.2 -W 2 10.20.0.80
    say "the page through the tunnel"
    page | tee "$work/page.html"
    grep -q 'behind the gateway' "$work/page.html" || fail "that is not the page behind the gateway"
    printf '\n'
    wait_for 10 "the second path" two_paths
    say "ropewalk paths: the cable carries, the phone stands by"
    cli paths
    say "a hundred pings a second, and the cable is pulled"
    on client ping -n -q -c 200 -i 0.01 -W 1 10.20.0.80 >"$work/pings" &
    pings=$!
    sleep 1
    ip -n "$prefix-router" link set home down
    wait $pings || true
    grep transmitted "$work/pings"
    cli paths
    page >/dev/null || fail "the page does not answer by way of the phone"
    say "the page still answers, now by way of the phone"
    say "ropewalk disconnect"
    cli disconnect
    if page 1 >/dev/null 2>&1; then fail "the page can still be reached after the disconnect"; fi
    say "done: the tunnel carried the page, and nothing is left of it"
    exit 0
fi

user=${SUDO_USER:-root}
# The helper takes orders from root and from the socket's group: the user at this screen, and no one else.
chgrp "$(id -g "$user")" "$work/run" "$work/run/helper.sock"
chmod 660 "$work/run/helper.sock"
as_user() {
    if [ "$user" = root ]; then "$@"
    else sudo -u "$user" --preserve-env=DISPLAY,WAYLAND_DISPLAY,XAUTHORITY,XDG_RUNTIME_DIR,DBUS_SESSION_BUS_ADDRESS,ROPEWALK_SOCKET "$@"
    fi
}
export ROPEWALK_SOCKET="$work/run/helper.sock"
as_user "$bin/ropewalk" import - <"$work/demo.toml" ||
    fail "the profile could not be imported"
say "opening the window: click Connect. Closing this script (Ctrl+C) or quitting from the tray ends the demo."
say "to pull the cable, and to plug it in again, in another terminal, as root:"
say "  ip -n $prefix-router link set home down"
say "  ip -n $prefix-router link set home up"
as_user "$bin/ropewalk-app" >"$work/window.log" 2>&1 &
window=$!
processes+=($window)
was=no
while kill -0 $window 2>/dev/null; do
    if page 2 >/dev/null 2>&1; then now=yes; else now=no; fi
    if [ $now != $was ]; then
        if [ $now = yes ]; then say "the page behind the gateway answers: http://10.20.0.80/ (through the tunnel)"
        else say "the page behind the gateway does not answer: no tunnel"
        fi
        was=$now
    fi
    sleep 1
done
say "the window is closed"
