import { expect, test } from "vitest";
import type { State } from "../src/lib/generated/ipc";
import { buttonOf, failure, lookOf } from "../src/lib/meaning";

test("every state has one deed, and the button never connects what is up", () => {
  const deeds: Record<State, string> = {
    disconnected: "connect",
    connecting: "disconnect",
    connected: "disconnect",
    reconnecting: "disconnect",
    disconnecting: "none",
    blocked: "disconnect",
    failed: "connect",
  };
  for (const [state, deed] of Object.entries(deeds)) expect(buttonOf(state as State).deed).toBe(deed);
});

test("only connected looks good", () => {
  const states: State[] = ["disconnected", "connecting", "reconnecting", "disconnecting", "blocked", "failed"];
  expect(lookOf("connected")).toBe("good");
  for (const state of states) expect(lookOf(state)).not.toBe("good");
});

test("a failure has a cause in the window's words, the service's own words, and what to do", () => {
  const words = failure({ code: "auth-failed", message: "EAP failure", hint: "Check the password." });
  expect(words).toEqual({ cause: "Signing in did not work.", detail: "EAP failure", hint: "Check the password." });
});

test("a failure without a sentence of ours is told in the service's words, once", () => {
  const words = failure({ code: "failed", message: "The disk is full.", hint: "" });
  expect(words).toEqual({ cause: "The disk is full.", detail: null, hint: "" });
});
