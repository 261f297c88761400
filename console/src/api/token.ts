/**
 * The bearer token of this tab. It is in the tab's own storage: other tabs and later visits sign in again, and no request
 * carries it by itself, so that other sites cannot use it.
 */
const KEY = "rota.token";
const listeners = new Set<() => void>();
/** Whether the control plane has answered without a token. */
let isOpen = false;
/** Why the tab is signed out, unless a person has done it. */
let why = "";
/** Whether the token was refused while pages were open: they stay as they are until the tab is signed in again. */
let isRefused = false;
/** Whether the token is that of viewers, which the responses to its calls name. */
let isViewing = false;
const roleListeners = new Set<() => void>();
/** Number of times that the tab was signed in or out. */
let changes = 0;

export function token(): string | null {
  return sessionStorage.getItem(KEY);
}

/** Whether calls can be made: with a token, or because none is required. */
export function isSignedIn(): boolean {
  return isOpen || token() !== null;
}

/** Whether the control plane requires no token. */
export function needsNoToken(): boolean {
  return isOpen;
}

/** Whether pages wait for another token. */
export function isExpired(): boolean {
  return isRefused;
}

/** Whether the token may change nothing. */
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

/** Returns a number that changes when the tab is signed in or out. */
export function signInChanges(): number {
  return changes;
}

/** Returns why a token is asked for again. */
export function signedOutBecause(): string {
  return why;
}

export function signIn(value: string): void {
  sessionStorage.setItem(KEY, value);
  why = "";
  isRefused = false;
  notify();
}

export function signInWithoutToken(): void {
  isOpen = true;
  isRefused = false;
  notify();
}

export function signOut(reason = ""): void {
  sessionStorage.removeItem(KEY);
  isOpen = false;
  why = reason;
  isRefused = false;
  notify();
}

/** Asks for another token, and keeps what a person has typed and not sent. */
export function expire(reason: string): void {
  sessionStorage.removeItem(KEY);
  isOpen = false;
  why = reason;
  isRefused = true;
  notify();
}

export function onSignIn(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function notify(): void {
  changes += 1;
  for (const listener of listeners) {
    listener();
  }
}

/** Takes the code of a link such as `/#code=…` over, and removes it from the address. */
export function takeCode(): string | undefined {
  const [, code] = /^#code=([0-9a-f]+)$/.exec(location.hash) ?? [];
  if (code) {
    history.replaceState(null, "", location.pathname + location.search);
  }
  return code;
}
