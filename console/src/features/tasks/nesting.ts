/** Calls that are remembered; of a longer log the oldest are forgotten. */
const MAX_CALLS = 10_000;
/** Levels that are distinguished. */
const DEEPEST = 6;

interface Call {
  callId?: string;
  parentCallId?: string;
}

/** How deep calls of tools are nested: a subagent's are below the call that started it. */
export class Nesting {
  readonly #depths = new Map<string, number>();

  /** Adds a call, and returns its depth: 0 for one of the agent itself. The call that started a subagent may have been left out. */
  add({ callId = "", parentCallId = "" }: Call): number {
    const depth = parentCallId ? Math.min(DEEPEST, this.of(parentCallId) + 1) : 0;
    const [oldest] = this.#depths.size >= MAX_CALLS ? this.#depths.keys() : [];
    if (oldest !== undefined) {
      this.#depths.delete(oldest);
    }
    this.#depths.set(callId, depth);
    return depth;
  }

  /** Returns the depth of a call; 0 of one that is not known. */
  of(callId = ""): number {
    return this.#depths.get(callId) ?? 0;
  }
}
