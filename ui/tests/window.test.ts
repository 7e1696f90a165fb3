// The whole window against a mocked program: what it shows for a view, and what it asks for when something is clicked.
import { emit } from "@tauri-apps/api/event";
import { clearMocks, mockIPC } from "@tauri-apps/api/mocks";
import { cleanup, configure, fireEvent, render, screen, waitFor } from "@testing-library/svelte";
import { afterEach, beforeEach, expect, test } from "vitest";
import { scene, view } from "../mock/scenes";
import App from "../src/App.svelte";
import type { AppView } from "../src/lib/generated/app";

// A machine that is busy with other things is no failure.
configure({ asyncUtilTimeout: 10_000 });

let asked: { command: string; payload: unknown }[] = [];

const open = async (first: AppView): Promise<void> => {
  mockIPC(
    (command, payload) => {
      // Asked for by themselves, not by a click.
      if (command !== "set_texts" && command !== "view") asked.push({ command, payload });
      return command === "view" ? first : undefined;
    },
    { shouldMockEvents: true },
  );
  render(App);
  await waitFor(() => expect(asked.some(({ command }) => command === "first_frame")).toBe(true));
  asked = [];
};

const id = (testid: string): HTMLElement => screen.getByTestId(testid);

beforeEach(() => {
  asked = [];
});

afterEach(() => {
  cleanup();
  clearMocks();
});

test("one click connects the chosen profile", async () => {
  await open(scene("disconnected"));
  expect(id("state").textContent).toBe("Not connected");
  await fireEvent.click(id("main-button"));
  expect(asked).toEqual([{ command: "connect", payload: { name: "Example Corp" } }]);
});

test("the button cancels while connecting and disconnects when connected", async () => {
  await open(scene("connecting"));
  expect(id("main-button").textContent?.trim()).toBe("Cancel");
  await fireEvent.click(id("main-button"));
  await emit("view", scene("connected"));
  await waitFor(() => expect(id("main-button").textContent?.trim()).toBe("Disconnect"));
  await fireEvent.click(id("main-button"));
  expect(asked.map(({ command }) => command)).toEqual(["disconnect", "disconnect"]);
});

test("the state is a polite live region", async () => {
  await open(scene("connected"));
  const region = id("state").closest("[role=status]");
  expect(region?.getAttribute("aria-live")).toBe("polite");
});

test("a failure shows cause and what to do inside the live region", async () => {
  await open(scene("failed"));
  const region = id("state").closest("[role=status]");
  expect(region?.contains(id("cause"))).toBe(true);
  expect(id("cause").textContent).toBe("Signing in did not work.");
  expect(id("hint").textContent).toMatch(/try again/);
});

test("a click on a profile chooses it, and switches to it while another is up", async () => {
  await open(scene("disconnected"));
  const lab = () => screen.getAllByTestId("profile").find((button) => button.dataset["name"] === "Lab") as HTMLElement;
  await fireEvent.click(lab());
  await emit("view", scene("connected"));
  await waitFor(() => expect(id("state").textContent).toBe("Connected"));
  await fireEvent.click(lab());
  expect(asked).toEqual([
    { command: "select", payload: { name: "Lab" } },
    { command: "connect", payload: { name: "Lab" } },
  ]);
});

test("traffic is counted for the connection shown and for no other", async () => {
  await open(scene("connected"));
  const traffic = { bytes_in: 20_000_000, bytes_out: 84, in_per_second: 1_000_000, out_per_second: 0 };
  await emit("traffic", { ...traffic, profile: "Lab" });
  await emit("traffic", { ...traffic, profile: "Example Corp" });
  await waitFor(() => expect(id("bytes-in").dataset["bytes"]).toBe("20000000"));
  expect(id("rate-in").textContent).toBe("1.0 MB/s");
});

test("what is typed for a password goes out once and stays nowhere", async () => {
  await open(scene("password"));
  expect(id("known-user").textContent).toBe("alice");
  expect(id("password-again").getAttribute("role")).toBe("alert");
  expect((id("password-submit") as HTMLButtonElement).disabled).toBe(true);
  const input = id("password") as HTMLInputElement;
  expect(input.type).toBe("password");
  await fireEvent.input(input, { target: { value: "secret" } });
  await fireEvent.click(id("remember"));
  await fireEvent.submit(input.form as HTMLFormElement);
  expect(asked).toEqual([
    { command: "answer", payload: { id: 1, values: [{ field: "password", value: "secret" }], remember: true } },
  ]);
  expect(input.value).toBe("");
});

test("without a keyring remembering is not offered and not sent", async () => {
  const base = scene("password");
  if (base.question === null) throw new Error("the scene has a question");
  await open({ ...base, question: { ...base.question, fields: ["user", "password"], can_remember: false } });
  expect((id("remember") as HTMLInputElement).disabled).toBe(true);
  expect((id("user") as HTMLInputElement).value).toBe("alice");
  // What is known already needs no keys: the password has the focus, and keeps it while the name is changed.
  await waitFor(() => expect(document.activeElement).toBe(id("password")));
  id("user").focus();
  await fireEvent.input(id("user"), { target: { value: "" } });
  expect(document.activeElement).toBe(id("user"));
});

test("a file is shown with its warnings, and saved under the name given", async () => {
  await open(scene("preview"));
  expect(id("import-gateway").textContent).toBe("vpn.example.com");
  expect(id("import-warnings").textContent).toMatch(/will be replaced/);
  expect(id("import-warnings").textContent).toMatch(/send_certreq/);
  await fireEvent.input(id("import-name"), { target: { value: "Second" } });
  expect(id("import-warnings").textContent).not.toMatch(/will be replaced/);
  await fireEvent.click(id("import-save"));
  expect(asked).toEqual([{ command: "import_save", payload: { name: "Second" } }]);
});

test("removing a profile is asked once more, and not offered for a managed one", async () => {
  await open(scene("disconnected"));
  const menus = screen.getAllByTestId("profile-menu");
  await fireEvent.click(menus[2] as HTMLElement);
  expect(screen.queryByTestId("profile-remove")).toBeNull();
  await fireEvent.click(screen.getByText("Close"));
  await fireEvent.click(menus[1] as HTMLElement);
  await fireEvent.click(id("profile-remove"));
  expect(asked).toEqual([]);
  await fireEvent.click(id("profile-remove-sure"));
  expect(asked).toEqual([{ command: "remove", payload: { name: "Lab" } }]);
});

test("without the service the window says how to start it, and goes on by itself", async () => {
  await open(scene("helper"));
  expect(id("helper-notice").textContent).toMatch(/systemctl start ropewalk-helper/);
  expect(screen.queryByTestId("main-button")).toBeNull();
  expect((id("import") as HTMLButtonElement).disabled).toBe(true);
  await emit("view", view());
  await waitFor(() => expect(id("main-button").textContent?.trim()).toBe("Connect"));
});

test("without a profile the big button imports one", async () => {
  await open(scene("empty"));
  await fireEvent.click(id("main-button"));
  expect(asked).toEqual([{ command: "import_pick", payload: {} }]);
});

test("a notice names cause and what to do, and can be put away", async () => {
  await open(scene("notice"));
  expect(id("notice").getAttribute("role")).toBe("alert");
  expect(id("notice-hint").textContent).toBeTruthy();
  await fireEvent.click(id("notice-close"));
  expect(asked).toEqual([{ command: "dismiss", payload: {} }]);
});

test("a leased address is shown with its time and its server", async () => {
  const before = scene("connected");
  await open(before);
  expect(screen.queryByTestId("lease")).toBeNull();
  const lease = { server: "10.77.50.2", until: "2027-01-15T08:30:00.000Z", search: [], ntp: [], wins: [], refused_routes: [] };
  await emit("view", { ...before, status: { ...before.status, lease } });
  await waitFor(() => expect(id("lease").textContent).toMatch(/until .*from 10\.77\.50\.2/s));
  await emit("view", { ...before, status: { ...before.status, lease: { ...lease, until: null } } });
  await waitFor(() => expect(id("lease").textContent).toContain("does not end"));
});

test("the paths are shown as strands with their state", async () => {
  await open(scene("strands"));
  expect(screen.getAllByTestId("path").map((path) => path.dataset["state"])).toEqual(["active", "standby", "failed"]);
});

test("several paths are strands with what each is, does and carries, and the policy can be changed", async () => {
  await open(scene("strands"));
  const strands = screen.getAllByTestId("path");
  expect(strands.map((strand) => strand.dataset["state"])).toEqual(["active", "standby", "failed"]);
  expect(strands[0]?.textContent).toMatch(/wlan0\s+Wi-Fi\s+carries/);
  expect(strands[2]?.textContent).toMatch(/mobile.*failed.*100 % lost.*metered/s);
  await fireEvent.change(id("policy"), { target: { value: "redundant" } });
  expect(asked).toEqual([{ command: "set_policy", payload: { policy: "redundant" } }]);
});

test("the strand that is left stays where it was, with the reason why it is alone", async () => {
  const before = scene("strands");
  await open(before);
  const [, wired] = before.status.paths;
  if (wired === undefined) throw new Error("the scene has two strands");
  const paths = [{ ...wired, state: "active" as const }];
  await emit("view", { ...before, status: { ...before.status, paths, alone: "there is one network and one address of the gateway" } });
  await waitFor(() => expect(screen.getAllByTestId("path").length).toBe(1));
  expect(screen.getByTestId("path").className).toMatch(/strand-1/);
  expect(id("alone").textContent).toMatch(/there is one network/);
  await emit("view", { ...before, status: { ...before.status, state: "disconnected", paths: [] } });
  await waitFor(() => expect(screen.queryByTestId("paths")).toBeNull());
});

test("the members of a group are shown with how each is reached, and what it costs", async () => {
  await open(scene("group"));
  const members = screen.getAllByTestId("member");
  expect(members.map((member) => member.dataset["way"])).toEqual(["direct", "untried", "gateway"]);
  expect(members[1]?.textContent).toContain("10.30.3.7/32 (learned)");
  expect(members[2]?.textContent).toMatch(/through the gateway; 192\.0\.2\.14 is not reached directly/);
  expect(id("group").textContent).toContain("Replayed packets are not noticed");
});

test("why a group is not used is shown", async () => {
  const shown = scene("group");
  const group = shown.status.group;
  if (group === null) throw new Error("the scene has no group");
  await open({ ...shown, status: { ...shown.status, group: { ...group, state: "refused", reason: "a counter mode", endpoints: [] } } });
  expect(id("group").dataset["state"]).toBe("refused");
  expect(id("group-reason").textContent).toBe("a counter mode");
});

test("of a tunnel that is an interface the window says that the routing table decides", async () => {
  const before = scene("connected");
  await open(before);
  expect(screen.queryByTestId("routed")).toBeNull();
  const spis = { spi_in: "00000001", spi_out: "00000002", suite: "aes256gcm16" };
  const counters = { bytes_in: 0, bytes_out: 0, packets_in: 0, packets_out: 0 };
  const children = [{ ...spis, ...counters, mode: "transport" }];
  await emit("view", { ...before, status: { ...before.status, children } });
  await waitFor(() => expect(id("routed").textContent).toMatch(/routing table.*IIPtran/));
});
