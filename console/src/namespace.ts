import { useSyncExternalStore } from "react";

const KEY = "rota.namespace";
const listeners = new Set<() => void>();

export function namespace(): string {
  return localStorage.getItem(KEY) ?? "default";
}

export function setNamespace(value: string): void {
  localStorage.setItem(KEY, value);
  for (const listener of listeners) {
    listener();
  }
}

/** The namespace that lists show. */
export function useNamespace(): string {
  return useSyncExternalStore((listener) => {
    listeners.add(listener);
    return () => listeners.delete(listener);
  }, namespace);
}
