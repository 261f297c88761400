import { type ReactNode, useSyncExternalStore } from "react";
import { isViewer, onRole } from "../api/token";

/** Whether the token may change something: that of viewers only reads. */
export function useMayAct(): boolean {
  return !useSyncExternalStore(onRole, isViewer);
}

/** What changes something: viewers do not see it, but the text in its place, if there is one. */
export function Acting({ children, otherwise }: { children: ReactNode; otherwise?: ReactNode }) {
  return useMayAct() ? children : otherwise;
}
