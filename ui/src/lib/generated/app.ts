// Written by app/src/view.rs from the Rust types. Do not edit.

import type {
  CredentialField,
  CredentialReason,
  ErrorInfo,
  Preview,
  ProfileSummary,
  Status,
} from "./ipc";

export type Helper = "starting" | "running" | "absent" | "denied" | "other-version";

export type AppView = { 
/**
 * Whether there is a helper to talk to.
 */
helper: Helper, 
/**
 * Why there is none.
 */
helper_error: ErrorInfo | null, 
/**
 * The profiles, in the helper's order.
 */
profiles: Array<ProfileView>, 
/**
 * The profile that the big button would connect.
 */
selected: string | null, 
/**
 * The connection shown.
 */
status: Status, 
/**
 * A question to the user.
 */
question: QuestionView | null, 
/**
 * A profile about to be imported.
 */
import: ImportView | null, 
/**
 * Something asked for that did not work.
 */
notice: ErrorInfo | null, };

export type ProfileView = { 
/**
 * What the helper says of it.
 */
summary: ProfileSummary, 
/**
 * True when the keyring holds its password.
 */
remembered: boolean, };

export type QuestionView = { 
/**
 * Number to answer with.
 */
id: number, 
/**
 * Name of the profile.
 */
profile: string, 
/**
 * What is asked for.
 */
fields: Array<CredentialField>, 
/**
 * Why.
 */
reason: CredentialReason, 
/**
 * The user name known so far.
 */
user: string | null, 
/**
 * True when there is a keyring to remember it in.
 */
can_remember: boolean, };

export type ImportView = { 
/**
 * Changes with every file, so that the pages tell one from the next.
 */
number: number, 
/**
 * Name of the file, without its folder.
 */
file: string, 
/**
 * What the file was read as.
 */
format: string, 
/**
 * What the profile will do.
 */
preview: Preview, 
/**
 * What nobody understands, and the like.
 */
warnings: Array<string>, };

export type TrafficView = { 
/**
 * Name of the profile.
 */
profile: string, 
/**
 * Octets received over the whole connection.
 */
bytes_in: number, 
/**
 * Octets sent over the whole connection.
 */
bytes_out: number, 
/**
 * Octets received in a second, of late.
 */
in_per_second: number, 
/**
 * Octets sent in a second, of late.
 */
out_per_second: number, };
