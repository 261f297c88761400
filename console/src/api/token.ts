/**
 * The bearer token of this tab. It is in the tab's own storage: other tabs and later visits sign in again, and no request
 * carries it by itself, so that other sites cannot use it.
 */
const KEY = "rota.token";
const listeners = new Set<() => void>();

export function token(): string | null {
  return sessionStorage.getItem(KEY);
}

export function setToken(value: string | null): void {
  if (value) {
    sessionStorage.setItem(KEY, value);
  } else {
    sessionStorage.removeItem(KEY);
  }
  for (const listener of listeners) {
    listener();
  }
}

export function onToken(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Takes the token of a link such as `/#token=…` over, and removes it from the address. */
export function takeToken(): void {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    setToken(given);
    history.replaceState(null, "", location.pathname + location.search);
  }
}
