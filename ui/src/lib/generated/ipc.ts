// Written by helper/ipc/tests/bindings.rs from the Rust types. Do not edit.

export type State = "disconnected" | "connecting" | "connected" | "reconnecting" | "disconnecting" | "blocked" | "failed";

export type Status = { 
/**
 * Where the connection stands.
 */
state: State, 
/**
 * Name of the profile; `null` when there is none, or when it is another user's.
 */
profile: string | null, 
/**
 * When `state` began, RFC 3339 in UTC.
 */
since: string, 
/**
 * The gateway talked to.
 */
gateway: GatewayStatus, 
/**
 * Inner addresses with prefix length.
 */
addresses: Array<string>, 
/**
 * DNS set up for this connection.
 */
dns: DnsStatus, 
/**
 * Networks routed into the tunnel.
 */
routes: Array<string>, 
/**
 * Inner MTU in octets.
 */
mtu: number | null, 
/**
 * The lease of the inner address, when that comes by DHCP and is held.
 */
lease: LeaseStatus | null, 
/**
 * The IKE_SAs, the carrying one first.
 */
ike: Array<IkeSa>, 
/**
 * The CHILD_SAs, the sending one first.
 */
children: Array<ChildSa>, 
/**
 * The paths: interface and gateway address.
 */
paths: Array<PathStatus>, 
/**
 * Why there is one path and no more, in words; `null` when there are several, or none.
 */
alone: string | null, 
/**
 * The group of a connection with a multi-point SA; `null` when the profile wants none.
 */
group: GroupStatus | null, 
/**
 * What was negotiated.
 */
features: Features, 
/**
 * Why the connection failed, why it is being brought back, or what is wrong with it while it stands.
 */
error: ErrorInfo | null, 
/**
 * Traffic of the whole connection, over all rekeys and reconnects.
 */
totals: Totals, 
/**
 * What several paths are used for.
 */
policy: Policy, 
/**
 * True when the connection is the asking user's own; others' details are not shown.
 */
owned: boolean, };

export type GatewayStatus = { 
/**
 * Its outer address, without the port.
 */
address: string | null, 
/**
 * What it proved to be.
 */
identity: string | null, };

export type DnsStatus = { 
/**
 * Addresses of the servers.
 */
servers: Array<string>, 
/**
 * Domains of split DNS; empty: all names.
 */
domains: Array<string>, };

export type LeaseStatus = { 
/**
 * The DHCP server that granted it.
 */
server: string, 
/**
 * When it ends unless it is renewed before, RFC 3339 in UTC; `null`: never.
 */
until: string | null, 
/**
 * Domains that names are completed with.
 */
search: Array<string>, 
/**
 * Time servers that the DHCP server names.
 */
ntp: Array<string>, 
/**
 * WINS servers that the DHCP server names.
 */
wins: Array<string>, 
/**
 * Routes that the DHCP server wanted and that are not followed, each with the reason.
 */
refused_routes: Array<string>, };

export type IkeSa = { 
/**
 * Initiator's SPI, 16 hexadecimal digits.
 */
spi_i: string, 
/**
 * Responder's SPI, 16 hexadecimal digits.
 */
spi_r: string, 
/**
 * Negotiated algorithms in strongSwan syntax, e.g. `aes256gcm16-prfsha384-x25519`.
 */
suite: string, 
/**
 * When it was established, RFC 3339 in UTC.
 */
established: string, 
/**
 * True when a NAT is on the way.
 */
nat: boolean, };

export type ChildSa = { 
/**
 * SPI of what comes in, 8 hexadecimal digits.
 */
spi_in: string, 
/**
 * SPI of what goes out, 8 hexadecimal digits.
 */
spi_out: string, 
/**
 * `tunnel` or `transport`.
 */
mode: string, 
/**
 * Negotiated algorithms, e.g. `aes256gcm16`.
 */
suite: string, 
/**
 * Inner octets received.
 */
bytes_in: number, 
/**
 * Inner octets sent.
 */
bytes_out: number, 
/**
 * Packets received.
 */
packets_in: number, 
/**
 * Packets sent.
 */
packets_out: number, };

export type PathState = "active" | "standby" | "probing" | "failed";

export type InterfaceKind = "ethernet" | "wifi" | "mobile" | "other";

export type PathStatus = { 
/**
 * Name of the interface.
 */
interface: string, 
/**
 * What it is.
 */
kind: InterfaceKind, 
/**
 * Its use is paid for by amount, as far as the system knows.
 */
metered: boolean, 
/**
 * Local outer address and port.
 */
local: string, 
/**
 * The gateway's address and port.
 */
remote: string, 
/**
 * What the path does.
 */
state: PathState, 
/**
 * Smoothed round-trip time in milliseconds, when measured.
 */
rtt_ms: number | null, 
/**
 * Share of lost probes, 0 to 1.
 */
loss: number, 
/**
 * Octets received.
 */
bytes_in: number, 
/**
 * Octets sent.
 */
bytes_out: number, 
/**
 * Initiator's SPI of the IKE_SA on this path, 16 hexadecimal digits.
 */
spi_i: string, };

export type GroupState = "waiting" | "in-use" | "refused" | "not-offered";

export type GroupStatus = { 
/**
 * Where its SA stands.
 */
state: GroupState, 
/**
 * What is wrong with the last SA that the gateway handed out, or why there is none.
 */
reason: string | null, 
/**
 * SPI of the SA that is sent with, 8 hexadecimal digits.
 */
spi: string | null, 
/**
 * Its algorithms, e.g. `aes256-sha256`.
 */
suite: string | null, 
/**
 * Whether replayed packets are noticed. Never for a group: its members count for themselves (RFC 4303 section 3.4.3).
 */
replay_protection: boolean, 
/**
 * The other members that there are routes to.
 */
endpoints: Array<EndpointStatus>, 
/**
 * Learned routes that are not used, each with the reason; the first sixteen.
 */
ignored_routes: Array<string>, 
/**
 * Traffic between members that did not go through the gateway.
 */
totals: Totals, };

export type EndpointWay = "direct" | "untried" | "gateway";

export type EndpointStatus = { 
/**
 * Its outer address.
 */
address: string, 
/**
 * Networks behind it that the profile lists.
 */
networks: Array<string>, 
/**
 * Networks behind it that a routing daemon learned.
 */
learned: Array<string>, 
/**
 * How it is reached.
 */
way: EndpointWay, 
/**
 * Inner octets sent to it directly.
 */
bytes_out: number, 
/**
 * Packets sent to it directly.
 */
packets_out: number, };

export type Features = { 
/**
 * MOBIKE (RFC 4555).
 */
mobike: boolean, 
/**
 * KEEP_OLD_IKE_SA.
 */
keep_old_ike_sa: boolean, 
/**
 * Multi-point SA.
 */
multi_point_sa: boolean, 
/**
 * IKE fragmentation (RFC 7383).
 */
fragmentation: boolean, 
/**
 * Post-quantum pre-shared key (RFC 8784).
 */
ppk: boolean, 
/**
 * Key exchange of the IKE_SA, e.g. `x25519`.
 */
key_exchange: string | null, };

export type Totals = { 
/**
 * Inner octets received.
 */
bytes_in: number, 
/**
 * Inner octets sent.
 */
bytes_out: number, 
/**
 * Packets received.
 */
packets_in: number, 
/**
 * Packets sent.
 */
packets_out: number, };

export type Traffic = { 
/**
 * Name of the profile.
 */
profile: string | null, 
/**
 * True when the connection is the asking user's own.
 */
owned: boolean, 
/**
 * Traffic of the whole connection.
 */
totals: Totals, 
/**
 * The CHILD_SAs with their counters.
 */
children: Array<ChildSa>, 
/**
 * The paths with their counters and measurements.
 */
paths: Array<PathStatus>, };

export type ErrorCode = "failed" | "usage" | "helper-unreachable" | "not-authorised" | "auth-failed" | "gateway-unreachable" | "no-proposal" | "profile-refused";

export type ErrorInfo = { 
/**
 * Stable code.
 */
code: ErrorCode, 
/**
 * What failed and why, one sentence of plain words.
 */
message: string, 
/**
 * What to do; may be empty.
 */
hint: string, };

export type Imported = { 
/**
 * Its name.
 */
name: string, 
/**
 * True when a profile of this name was there before.
 */
replaced: boolean, 
/**
 * What the file says that nobody understands, and the like.
 */
warnings: Array<string>, };

export type ProfileSource = "user" | "system" | "managed";

export type ProfileSummary = { 
/**
 * Its name.
 */
name: string, 
/**
 * The gateway's first address.
 */
gateway: string, 
/**
 * How it logs in.
 */
method: Method, 
/**
 * Its user name, when it has one.
 */
user: string | null, 
/**
 * Where it comes from.
 */
source: ProfileSource, 
/**
 * What a connect would have to be told: `user`, `password`, `psk`, `certificate`, `private_key`.
 */
missing: Array<string>, 
/**
 * Why the profile cannot be used, if it cannot.
 */
error: ErrorInfo | null, };

export type ProfileShown = { 
/**
 * The line of the list.
 */
summary: ProfileSummary, 
/**
 * What it will do.
 */
preview: Preview, 
/**
 * The whole profile in the native format.
 */
toml: string, };

export type ProfilePaths = { 
/**
 * Name of the profile.
 */
profile: string, 
/**
 * What several paths are used for.
 */
policy: Policy, 
/**
 * The paths.
 */
paths: Array<PathStatus>, };

export type Preview = { 
/**
 * Name of the profile.
 */
name: string, 
/**
 * Host names or addresses of the gateway.
 */
gateway: Array<string>, 
/**
 * What the gateway must prove.
 */
gateway_identity: string, 
/**
 * True when the profile brings its own CA, false when the system's trust store decides.
 */
own_ca: boolean, 
/**
 * How the client logs in.
 */
method: Method, 
/**
 * The user name, when the profile has one.
 */
user: string | null, 
/**
 * The client's IKE identity, when the profile has one.
 */
identity: string | null, 
/**
 * What will be asked for when connecting.
 */
asks_for: Array<string>, 
/**
 * Networks that go through the tunnel; empty: what the gateway grants.
 */
routes: Array<string>, 
/**
 * Networks that stay outside.
 */
exclude: Array<string>, 
/**
 * DNS servers; empty: the gateway's.
 */
dns_servers: Array<string>, 
/**
 * Domains of split DNS; empty: all names.
 */
dns_domains: Array<string>, 
/**
 * Where the inner address comes from.
 */
address_source: AddressSource, 
/**
 * Blocks everything outside the tunnel.
 */
kill_switch: boolean, 
/**
 * Uses several paths when the gateway can.
 */
multipath: boolean, 
/**
 * What several paths are used for.
 */
policy: Policy, 
/**
 * Why this version cannot connect with it, if it cannot.
 */
unsupported: string | null, 
/**
 * Keys that have no effect in this version, one sentence each.
 */
without_effect: Array<string>, };

export type Method = "psk" | "certificate" | "eap-mschapv2" | "eap-tls" | "eap-ttls" | "eap-peap" | "eap-md5";

export type Policy = "failover" | "balance" | "redundant";

export type AddressSource = "config-payload" | "dhcp" | "static";

export type CredentialRequest = { 
/**
 * Number to answer with.
 */
id: number, 
/**
 * Name of the profile.
 */
profile: string, 
/**
 * What is needed.
 */
fields: Array<CredentialField>, 
/**
 * Why it is asked.
 */
reason: CredentialReason, 
/**
 * The user name known so far.
 */
user: string | null, };

export type CredentialField = "user" | "password" | "psk" | "pkcs12-password";

export type CredentialReason = "missing" | "wrong" | "expired";
