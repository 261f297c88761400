import { useSyncExternalStore } from "react";
import { ofBase } from "./base";

const KEY = ofBase("rota.namespace");
const listeners = new Set<() => void>();

/** Of this window: what another one shows must not change what an action here reaches. A reload keeps it, and a new window begins with the last one. */
let current = sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY) ?? "default";

export function namespace(): string {
  return current;
}

export function setNamespace(value: string): void {
  current = value;
  sessionStorage.setItem(KEY, value);
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
