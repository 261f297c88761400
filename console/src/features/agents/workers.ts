import { visible } from "../../api/plain";
import type { Worker } from "../../api/types";

/** Whether a worker gets no tasks although that was not asked for. */
export const isSick = (worker: Worker) =>
  Boolean(worker.notReadyReason || worker.breaker) || (!worker.connected && !worker.draining);

/** Returns workers with those that need attention first. */
export function sickFirst<W extends Worker>(workers: W[]): W[] {
  return [...workers].sort((one, other) => Number(isSick(other)) - Number(isSick(one)));
}

/** Returns whether a worker takes tasks, or why not. */
export function stateOf(worker: Worker): string {
  const problem = visible(worker.notReadyReason) || (worker.breaker && `breaker: ${visible(worker.breaker)}`);
  return problem || (worker.draining ? "draining" : worker.connected ? "connected" : "disconnected");
}
