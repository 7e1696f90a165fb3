// The way to the program behind the window: its commands and events, with the types that are generated from it.
import { invoke } from "@tauri-apps/api/core";
import { listen, type UnlistenFn } from "@tauri-apps/api/event";
import type { CredentialField, Policy } from "./generated/ipc";
import type { AppView, TrafficView } from "./generated/app";

export const backend = {
  view: () => invoke<AppView>("view"),
  firstFrame: () => invoke<void>("first_frame"),
  select: (name: string) => invoke<void>("select", { name }),
  connect: (name: string) => invoke<void>("connect", { name }),
  disconnect: () => invoke<void>("disconnect"),
  setPolicy: (policy: Policy) => invoke<void>("set_policy", { policy }),
  remove: (name: string) => invoke<void>("remove", { name }),
  forget: (name: string) => invoke<void>("forget", { name }),
  importPick: () => invoke<void>("import_pick"),
  importSave: (name: string) => invoke<void>("import_save", { name }),
  importCancel: () => invoke<void>("import_cancel"),
  answer: (id: number, values: { field: CredentialField; value: string }[], remember: boolean) =>
    invoke<void>("answer", { id, values, remember }),
  answerCancel: (id: number) => invoke<void>("answer_cancel", { id }),
  dismiss: () => invoke<void>("dismiss"),
  setTexts: (texts: Record<string, string>) => invoke<void>("set_texts", { texts }),

  onView: (handler: (view: AppView) => void): Promise<UnlistenFn> =>
    listen<AppView>("view", ({ payload }) => handler(payload)),
  onTraffic: (handler: (traffic: TrafficView) => void): Promise<UnlistenFn> =>
    listen<TrafficView>("traffic", ({ payload }) => handler(payload)),
  onDrag: (handler: (over: boolean) => void): Promise<UnlistenFn> =>
    listen<boolean>("drag", ({ payload }) => handler(payload)),
};
