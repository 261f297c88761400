/**
 * Whether this browser is signed in: its session is a cookie that no script can read. Pages only see which calls succeed, and all
 * windows of the browser have the same session.
 */
const listeners = new Set<() => void>();
/** Owner of pages for which no session is required. */
export const EVERYONE = "everyone";
/** Whether calls have succeeded with the session. */
let isIn = false;
/** Whether the control plane has answered without a session. */
let isOpen = false;
/** Why the window is signed out, unless a person has done it. */
let why = "";
/** Whether the session has ended while pages were open: they stay as they are until the window is signed in again. */
let isRefused = false;
/** Whether the session is that of a viewer, which the responses to its calls name. */
let isViewing = false;
const roleListeners = new Set<() => void>();
/** Who the session belongs to: still after it has ended by itself, while pages wait for a person to sign in again. */
let owner: string | undefined;
/** Number of times that the window was signed in or out. */
let changes = 0;

/** Whether calls can be made: with a session, or because none is required. */
export function isSignedIn(): boolean {
  return isOpen || isIn;
}

/** Whether the control plane requires no token. */
export function needsNoToken(): boolean {
  return isOpen;
}

/** Whether pages wait until a person has signed in again. */
export function isExpired(): boolean {
  return isRefused;
}

/** Whether the session may change nothing. */
export function isViewer(): boolean {
  return isViewing;
}

/** Notes the role that a response names: none is that of an admin. */
export function setRole(role: string | null): void {
  if (isViewing !== (role === "viewer")) {
    isViewing = !isViewing;
    for (const listener of roleListeners) {
      listener();
    }
  }
}

export function onRole(listener: () => void): () => void {
  roleListeners.add(listener);
  return () => roleListeners.delete(listener);
}

/** Returns a number that changes when the window is signed in or out. */
export function signInChanges(): number {
  return changes;
}

/** Returns why a token is asked for again. */
export function signedOutBecause(): string {
  return why;
}

/** Returns who the page was read for: a person, or all holders of the token of a role; `undefined` after a sign-out. */
export function sessionOwner(): string | undefined {
  return owner;
}

export function signIn(whose: string): void {
  owner = whose;
  set({ isIn: true });
}

export function signInWithoutToken(): void {
  owner = EVERYONE;
  set({ isOpen: true });
}

export function signOut(reason = ""): void {
  owner = undefined;
  set({ why: reason });
}

/** Asks to sign in again, and keeps what a person has typed and not sent. */
export function expire(reason: string): void {
  set({ why: reason, isRefused: true });
}

function set(state: { isIn?: boolean; isOpen?: boolean; why?: string; isRefused?: boolean }): void {
  isIn = state.isIn ?? false;
  isOpen = state.isOpen ?? false;
  why = state.why ?? "";
  isRefused = state.isRefused ?? false;
  changes += 1;
  for (const listener of listeners) {
    listener();
  }
}

export function onSignIn(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Takes the code of a link such as `/#code=…` over, and removes it from the address. */
export function takeCode(): string | undefined {
  const [, code] = /^#code=([0-9a-f]+)$/.exec(location.hash) ?? [];
  if (code) {
    history.replaceState(null, "", location.pathname + location.search);
  }
  return code;
}

/** What a person reads who comes back from an issuer without being signed in. */
const REFUSALS = new Map([
  ["expired", "The sign-in took too long, or began in another browser: try again."],
  ["state", "The answer belongs to another sign-in: try again."],
  ["nonce", "The token belongs to another sign-in: try again."],
  ["denied", "The sign-in was refused."],
  ["later", "Too many sign-ins at the same time: try again."],
  ["issuer", "The sign-in has failed; the log of the control plane has the cause."],
  ["session", "The control plane could not store the session: try again."],
  ["unlisted", "You are not on the list of people who may sign in; ask an admin of the control plane."],
]);

/** Returns what an address such as `/#refused=state` means: only words that are known are shown. */
export function refusalOf(hash: string): string | undefined {
  const [, word] = /^#refused=([a-z]+)$/.exec(hash) ?? [];
  return word && (REFUSALS.get(word) ?? REFUSALS.get("issuer"));
}

/** Takes over why a sign-in with an issuer has failed, and removes it from the address. */
export function takeRefusal(): string | undefined {
  const refusal = refusalOf(location.hash);
  if (refusal) {
    history.replaceState(null, "", location.pathname + location.search);
  }
  return refusal;
}
