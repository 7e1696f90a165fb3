// The views a window can show, for the mock and for the tests.
import type { AppView, ImportView, ProfileView } from "../src/lib/generated/app";
import type { ErrorInfo, Method, ProfileSource, Status } from "../src/lib/generated/ipc";
import { nothing } from "../src/lib/store.svelte";

const profile = (name: string, gateway: string, method: Method, user: string | null, source: ProfileSource, remembered: boolean): ProfileView => ({
  summary: { name, gateway, method, user, source, missing: [], error: null },
  remembered,
});

export const profiles: ProfileView[] = [
  profile("Example Corp", "vpn.example.com", "eap-mschapv2", "alice", "user", true),
  profile("Lab", "203.0.113.7", "psk", null, "user", false),
  profile("Branch office Lyon", "lyon.example.net", "certificate", null, "managed", false),
];

export const status = (over: Partial<Status> = {}): Status => ({ ...nothing.status, owned: true, ...over });

const up: Partial<Status> = {
  profile: "Example Corp",
  since: new Date(Date.now() - 4_271_000).toISOString(),
  gateway: { address: "203.0.113.7", identity: "vpn.example.com" },
  addresses: ["10.20.0.5/24", "fd00:20::5/64"],
  dns: { servers: ["10.20.0.1"], domains: ["corp.example.com"] },
  routes: ["10.0.0.0/8", "fd00:20::/32"],
  mtu: 1400,
  ike: [
    {
      spi_i: "a1b2c3d4e5f60718",
      spi_r: "1827364554637281",
      suite: "aes256gcm16-prfsha384-x25519",
      established: new Date().toISOString(),
      nat: true,
    },
  ],
};

const path = (name: string, state: "active" | "standby" | "probing" | "failed", rtt: number | null, bytes: number) => ({
  interface: name,
  kind: name.startsWith("wl") ? ("wifi" as const) : name.startsWith("ww") ? ("mobile" as const) : ("ethernet" as const),
  metered: name.startsWith("ww"),
  local: "192.0.2.10:40000",
  remote: "203.0.113.7:4500",
  state,
  rtt_ms: rtt,
  loss: 0,
  bytes_in: bytes,
  bytes_out: bytes / 4,
  spi_i: "a1b2c3d4e5f60718",
});

export const view = (over: Partial<AppView> = {}): AppView => ({
  ...nothing,
  helper: "running",
  profiles,
  selected: "Example Corp",
  ...over,
});

const file: ImportView = {
  number: 1,
  file: "corp.sswan",
  format: "strongSwan (.sswan)",
  preview: {
    name: "Example Corp",
    gateway: ["vpn.example.com"],
    gateway_identity: "vpn.example.com",
    own_ca: true,
    method: "eap-mschapv2",
    user: "alice",
    identity: "alice@example.com",
    asks_for: ["password"],
    routes: ["10.0.0.0/8", "172.16.0.0/12"],
    exclude: [],
    dns_servers: ["10.0.0.53"],
    dns_domains: [],
    address_source: "config-payload",
    kill_switch: false,
    multipath: true,
    policy: "failover",
    unsupported: null,
    without_effect: [],
  },
  warnings: ["The key “send_certreq” is not known to Ropewalk and has no effect."],
};

const error: ErrorInfo = {
  code: "auth-failed",
  message: "the gateway did not accept user and password",
  hint: "Check them and try again; after several attempts the account may be locked for a while.",
};

const scenes: Record<string, () => AppView> = {
  disconnected: () => view(),
  empty: () => view({ profiles: [], selected: null }),
  connecting: () => view({ status: status({ state: "connecting", profile: "Example Corp" }) }),
  connected: () => view({ status: status({ ...up, state: "connected", paths: [path("wlan0", "active", 18.4, 48_000_000)] }) }),
  strands: () =>
    view({
      status: status({
        ...up,
        state: "connected",
        paths: [path("wlan0", "active", 18.4, 48e6), path("eth0", "standby", 9.1, 21e6), { ...path("wwan0", "failed", null, 2e6), loss: 1 }],
      }),
    }),
  group: () =>
    view({
      status: status({
        ...up,
        state: "connected",
        paths: [path("wlan0", "active", 18.4, 48e6)],
        group: {
          state: "in-use",
          reason: null,
          spi: "1f00aa01",
          suite: "aes256-sha256",
          replay_protection: false,
          endpoints: [
            { address: "192.0.2.12", networks: ["10.30.2.0/24"], learned: [], way: "direct", bytes_out: 3e6, packets_out: 2400 },
            { address: "2001:db8::13", networks: [], learned: ["10.30.3.7/32"], way: "untried", bytes_out: 0, packets_out: 0 },
            { address: "192.0.2.14", networks: ["10.30.4.0/24"], learned: [], way: "gateway", bytes_out: 0, packets_out: 0 },
          ],
          ignored_routes: [],
          totals: { bytes_in: 1e6, bytes_out: 3e6, packets_in: 900, packets_out: 2400 },
        },
      }),
    }),
  reconnecting: () => view({ status: status({ ...up, state: "reconnecting" }) }),
  blocked: () => view({ status: status({ state: "blocked", profile: "Example Corp" }) }),
  failed: () => view({ status: status({ state: "failed", profile: "Example Corp", error }) }),
  password: () =>
    view({
      status: status({ state: "connecting", profile: "Example Corp" }),
      question: { id: 1, profile: "Example Corp", fields: ["password"], reason: "wrong", user: "alice", can_remember: true },
    }),
  preview: () => view({ import: file }),
  notice: () => view({ notice: { code: "profile-refused", message: "holiday.jpg: binary data is not a profile", hint: "Choose a profile file." } }),
  helper: () => view({ helper: "absent", helper_error: { code: "helper-unreachable", message: "the Ropewalk helper is not running (no answer on /run/ropewalk/helper.sock)", hint: "start it with `systemctl start ropewalk-helper`" }, profiles: [], selected: null }),
};

export const scene = (name: string): AppView => (scenes[name] ?? view)();
