// The server's routes.

import type { Access } from "./protocol.js";
import { sentence } from "./words.js";

export interface Session {
  sessionId: string;
  user: string;
  name: string | null;
  title: string;
  created: string;
  lastActivity: string;
  cols: number;
  rows: number;
  workdir: string | null;
  clients: number;
  state: "running" | "exited" | "lost";
  exitCode: number | null;
}

export interface Saved {
  savedId: string;
  sessionId: string;
  name: string | null;
  created: string;
  workdir: string | null;
}

export interface Share {
  shareId: string;
  access: Access;
  expires: string;
  used: boolean;
}

export interface NewShare extends Share {
  ticket: string;
  url: string;
}

export interface Batch {
  id: string;
  name: string | null;
  state: "queued" | "running" | "succeeded" | "failed" | "cancelled";
  created: string;
  started: string | null;
  duration: number;
  exitCode: number | null;
  counts: Record<"total" | "queued" | "running" | "retrying" | "succeeded" | "failed" | "skipped" | "cancelled", number>;
}

export interface Step {
  id: string;
  command: string;
  dependsOn: string[];
  state: "queued" | "running" | "retrying" | "succeeded" | "failed" | "skipped" | "cancelled";
  attempt: number;
  reason: string | null;
  error: string | null;
  exitCode: number | null;
  signal: string | null;
  started: string | null;
  duration: number | null;
  stdoutBytes: number;
  stderrBytes: number;
  stdoutTruncated: boolean;
  stderrTruncated: boolean;
}

export interface BatchRecord extends Batch {
  steps: Step[];
}

export interface Me {
  user: string;
  guest: { sessionId: string; access: Access; expires: string } | null;
  /** What the user may do. */
  scopes: string[];
}

/** A refusal, in the server's words. */
export class Refusal extends Error {
  readonly status: number;
  /** All that it says. */
  readonly told: Record<string, unknown>;

  constructor(status: number, message: string, told: Record<string, unknown> = {}) {
    super(message);
    this.status = status;
    this.told = told;
  }
}

/** What stands behind `#` in a link that logs in, or is typed. */
export type Shown = { token: string } | { ticket: string };

async function ask<T>(method: string, path: string, body?: unknown): Promise<T> {
  const init: RequestInit = { method, credentials: "same-origin" };
  if (body !== undefined) {
    init.headers = { "Content-Type": "application/json" };
    init.body = JSON.stringify(body);
  }
  let response: Response;
  try {
    response = await fetch(new URL(path, document.baseURI), init);
  } catch {
    throw new Refusal(0, "The server can't be reached.");
  }
  const text = await response.text();
  let value: unknown = null;
  try {
    value = text === "" ? null : JSON.parse(text);
  } catch {
    value = null;
  }
  if (!response.ok) {
    const told = typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
    if (response.status === 401 && !["login", "me"].includes(path)) void lookWhoIsHere();
    throw new Refusal(response.status, typeof told.detail === "string" ? sentence(told.detail) : `The server answered ${response.status}.`, told);
  }
  return value as T;
}

/** A login that was ended elsewhere is over here, too. */
async function lookWhoIsHere(): Promise<void> {
  try {
    await api.me();
  } catch (error) {
    if (error instanceof Refusal && error.status === 401) location.reload();
  }
}

const batchOf = (id: string) => `api/v1/batches/${encodeURIComponent(id)}`;
const of = (id: string) => `api/v1/sessions/${encodeURIComponent(id)}`;

export const api = {
  me: () => ask<Me>("GET", "me"),
  /** Where somebody else is logged in, and may not be replaced, it is refused with 409. */
  login: (shown: Shown, replace: boolean) => ask<Me>("POST", "login", { ...shown, replace }),
  logout: () => ask<null>("POST", "logout"),
  sessions: async () => (await ask<{ sessions: Session[] }>("GET", "api/v1/sessions")).sessions,
  session: (id: string) => ask<Session>("GET", of(id)),
  create: (request: Record<string, unknown>) => ask<Session>("POST", "api/v1/sessions", request),
  rename: (id: string, name: string | null) => ask<Session>("PATCH", of(id), { name }),
  end: (id: string) => ask<null>("DELETE", of(id)),
  save: (id: string, name: string | null) => ask<Saved>("POST", `${of(id)}/save`, name ? { name } : {}),
  saved: async () =>
    (await ask<{ savedSessions: Saved[] }>("GET", "api/v1/saved-sessions")).savedSessions,
  removeSaved: (id: string) => ask<null>("DELETE", `api/v1/saved-sessions/${encodeURIComponent(id)}`),
  shares: async (id: string) => (await ask<{ shares: Share[] }>("GET", `${of(id)}/shares`)).shares,
  share: (id: string, access: Access, expiresIn: number) =>
    ask<NewShare>("POST", `${of(id)}/shares`, { access, expiresIn }),
  /** One share, or all of them. */
  revoke: (id: string, share: string | null) =>
    ask<null>("DELETE", `${of(id)}/shares${share === null ? "" : `/${encodeURIComponent(share)}`}`),
  /** What is switched on. */
  capabilities: async () => (await ask<{ capabilities: string[] }>("GET", "api/v1/service")).capabilities,
  batches: (cursor: string | null) =>
    ask<{ batches: Batch[]; cursor: string | null }>("GET", `api/v1/batches${cursor === null ? "" : `?cursor=${encodeURIComponent(cursor)}`}`),
  batch: (id: string) => ask<BatchRecord>("GET", batchOf(id)),
  submitBatch: (request: Record<string, unknown>) => ask<BatchRecord>("POST", "api/v1/batches", request),
  cancelBatch: (id: string) => ask<BatchRecord>("DELETE", batchOf(id)),
  rerunBatch: (id: string, onlyFailed: boolean) =>
    ask<BatchRecord>("POST", `${batchOf(id)}/rerun${onlyFailed ? "?only=failed" : ""}`),
  /** All that a step has printed and that is kept. */
  output: (id: string, step: string, stream: "stdout" | "stderr") =>
    new URL(`${batchOf(id)}/steps/${encodeURIComponent(step)}/${stream}`, document.baseURI).href,
  recording: (id: string) => new URL(`${of(id)}/recording`, document.baseURI).href,
  screen: (id: string) => new URL(`${of(id)}/screen?format=text`, document.baseURI).href,
};
