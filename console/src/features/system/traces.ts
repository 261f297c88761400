import { ofBase } from "../../base";

/** Where this browser opens traces: whatever receives the spans is no part of the control plane. */
const KEY = ofBase("rota.traces");
const PLACE = "{trace}";

export function traceAddress(): string {
  return localStorage.getItem(KEY) ?? "";
}

/** Keeps an address with a place for the id of a trace; an empty one removes it. Fails if it is none. */
export function setTraceAddress(address: string): void {
  if (address && !(/^https?:\/\//.test(address) && address.includes(PLACE))) {
    throw new Error(`the address begins with https:// or http://, and has ${PLACE} for the id of the trace`);
  }
  localStorage.setItem(KEY, address);
}

/** Returns the address of a trace; none without an address for all of them. */
export function traceUrl(trace: string | undefined, address = traceAddress()): string | undefined {
  return trace && address ? address.replaceAll(PLACE, encodeURIComponent(trace)) : undefined;
}
