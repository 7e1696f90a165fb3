#!/bin/sh
# Renders every picture the window and the packages need from ropewalk.svg. Run it after changing the drawing; the
# results are committed, so that a build needs neither rsvg-convert nor Python.
#
#   app/      the program's icon: PNG in the usual sizes, icon.ico (Windows), icon.icns (macOS)
#   tray/     one picture per state, in colour (NAME.png) and as a shape only (NAME-mono.png, black with alpha)
set -eu
cd "$(dirname "$0")"
command -v rsvg-convert >/dev/null || { echo "render.sh: rsvg-convert is missing (apt install librsvg2-bin)" >&2; exit 1; }
mkdir -p app tray
sheet=$(mktemp)
trap 'rm -f "$sheet"' EXIT

# render CLASS COLOUR SIZE FILE
render() {
    {
        echo ".drawing { display: none }"
        echo ".$1 { display: inline }"
        echo ".tray { fill: $2; stroke-linecap: round; stroke-linejoin: round }"
        echo ".laid { fill: none; stroke: $2; stroke-width: 7 }"
        echo ".loose { fill: none; stroke: $2; stroke-width: 4 }"
        echo ".sign { fill: none; stroke: $2; stroke-width: 6 }"
        echo ".thin { stroke-width: 5 }"
    } > "$sheet"
    rsvg-convert --stylesheet "$sheet" --width "$3" --height "$3" --output "$4" ropewalk.svg
}

for size in 16 32 48 64 128 256 512 1024; do render app "#000000" "$size" "app/$size.png"; done

# Mid-tones that stand out from a dark panel and from a light one.
for pair in disconnected:#8b96a5 connecting:#e39a27 connected:#1fae98 reconnecting:#e39a27 blocked:#7f86ee failed:#e8573f; do
    state=${pair%%:*}
    render "$state" "${pair#*:}" 44 "tray/$state.png"
    render "$state" "#000000" 44 "tray/$state-mono.png"
done

# .ico and .icns are containers of the PNGs above.
python3 - <<'PY'
import struct
def png(size): return open(f"app/{size}.png", "rb").read()
sizes = [16, 32, 48, 64, 128, 256]
images = [png(s) for s in sizes]
offset = 6 + 16 * len(sizes)
out = struct.pack("<HHH", 0, 1, len(sizes))
for s, i in zip(sizes, images):
    out += struct.pack("<BBBBHHII", s % 256, s % 256, 0, 0, 1, 32, len(i), offset)
    offset += len(i)
open("app/icon.ico", "wb").write(out + b"".join(images))
chunks = b"".join(struct.pack(">4sI", kind, 8 + len(png(s))) + png(s)
                  for kind, s in [(b"ic07", 128), (b"ic08", 256), (b"ic09", 512), (b"ic10", 1024)])
open("app/icon.icns", "wb").write(b"icns" + struct.pack(">I", 8 + len(chunks)) + chunks)
PY
