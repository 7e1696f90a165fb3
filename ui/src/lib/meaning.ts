// What a state means for the window: its look, what the big button does, and the words for a failure.
import type { ErrorInfo, State } from "./generated/ipc";
import { maybe, type TextKey } from "./i18n/index.svelte";

/** The looks there are; each has a colour, and a shape of the rope's ring. */
export type Look = "idle" | "work" | "good" | "shut" | "bad";

const looks: Record<State, Look> = {
  disconnected: "idle",
  connecting: "work",
  connected: "good",
  reconnecting: "work",
  disconnecting: "work",
  blocked: "shut",
  failed: "bad",
};

export const lookOf = (state: State): Look => looks[state];

export type Deed = "connect" | "disconnect" | "none";

/** What the one big button says and does. */
export const buttonOf = (state: State): { label: TextKey; deed: Deed } => {
  switch (state) {
    case "disconnected":
      return { label: "action.connect", deed: "connect" };
    case "failed":
      return { label: "action.retry", deed: "connect" };
    case "connecting":
    case "reconnecting":
      return { label: "action.cancel", deed: "disconnect" };
    case "connected":
    case "blocked":
      return { label: "action.disconnect", deed: "disconnect" };
    case "disconnecting":
      return { label: "state.disconnecting", deed: "none" };
  }
};

/** Cause and what to do: the cause in the window's language where it knows the code, and in the service's own words. */
export const failure = (error: ErrorInfo): { cause: string; hint: string; detail: string | null } => {
  const key = `error.${error.code}`;
  const cause = maybe(key);
  if (cause === null) return { cause: error.message, hint: error.hint, detail: null };
  return { cause, hint: error.hint, detail: error.message };
};
