// What the window shows: the program's latest view, the last minute of traffic, and a clock for "connected for".
import { backend } from "./backend";
import type { AppView, TrafficView } from "./generated/app";
import { type Counted, count as counted, placed, type Places, type Rates, rates } from "./strands";
import { push, type Sample } from "./traffic";

/** Before the program has said anything. */
export const nothing: AppView = {
  helper: "starting",
  helper_error: null,
  profiles: [],
  selected: null,
  status: {
    state: "disconnected",
    profile: null,
    since: "",
    gateway: { address: null, identity: null },
    addresses: [],
    dns: { servers: [], domains: [] },
    routes: [],
    mtu: null,
    lease: null,
    ike: [],
    children: [],
    paths: [],
    alone: null,
    group: null,
    features: {
      mobike: false,
      keep_old_ike_sa: false,
      multi_point_sa: false,
      fragmentation: false,
      ppk: false,
      key_exchange: null,
    },
    error: null,
    totals: { bytes_in: 0, bytes_out: 0, packets_in: 0, packets_out: 0 },
    policy: "failover",
    owned: false,
  },
  question: null,
  import: null,
  notice: null,
};

export class Store {
  view = $state.raw<AppView>(nothing);
  traffic = $state.raw<TrafficView | null>(null);
  samples = $state.raw<Sample[]>([]);
  /** What goes over each strand in a second. */
  strands = $state.raw<Rates>({});
  /** Where each strand of this connection is in the picture. */
  places = $state.raw<Places>({});
  now = $state(Date.now());
  dragging = $state(false);

  #counted: Counted = { at: 0, paths: {} };

  /** The profile that the big button is about. */
  get profile() {
    const name = this.view.status.profile ?? this.view.selected;
    return this.view.profiles.find((profile) => profile.summary.name === name) ?? null;
  }

  show(view: AppView): void {
    const before = this.view.status;
    const after = view.status;
    if (after.state === "disconnected" || after.profile !== before.profile) {
      this.samples = [];
      this.traffic = null;
      this.places = {};
    }
    this.places = placed(this.places, after.paths);
    this.view = view;
  }

  count(traffic: TrafficView): void {
    if (traffic.profile !== this.view.status.profile) return;
    this.traffic = traffic;
    this.samples = push(this.samples, { down: traffic.in_per_second, up: traffic.out_per_second });
  }

  /** A second has gone by. */
  tick(now: number): void {
    this.now = now;
    const before = this.#counted;
    this.#counted = counted(this.view.status.paths, now);
    this.strands = rates(before, this.#counted);
  }

  /**
   * Shows what there is, and follows every change. Asks at once, for the first frame's sake, and again when it listens
   * for changes, so that none falls between. Returns what stops it.
   */
  async follow(): Promise<() => void> {
    const first = backend.view().then((view) => this.show(view));
    const stops = await Promise.all([
      backend.onView((view) => this.show(view)),
      backend.onTraffic((traffic) => this.count(traffic)),
      backend.onDrag((over) => (this.dragging = over)),
    ]);
    await first;
    void backend.view().then((view) => this.show(view));
    const clock = setInterval(() => this.tick(Date.now()), 1000);
    return () => {
      clearInterval(clock);
      for (const stop of stops) stop();
    };
  }
}
