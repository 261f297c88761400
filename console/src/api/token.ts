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

/** Returns why a token is asked for again. */
export function signedOutBecause(): string {
  return why;
}

export function signIn(value: string): void {
  sessionStorage.setItem(KEY, value);
  why = "";
  notify();
}

export function signInWithoutToken(): void {
  isOpen = true;
  notify();
}

export function signOut(reason = ""): void {
  sessionStorage.removeItem(KEY);
  isOpen = false;
  why = reason;
  notify();
}

export function onSignIn(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function notify(): void {
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
