import { ApiError, isTransient, newKey } from "./client";

/** Reasons of refusals that show that an earlier call with the key was made, with which no call can succeed any more. */
const USED = ["IDEMPOTENCY_KEY_CONFLICT", "IDEMPOTENCY_KEY_EXPIRED"];

/**
 * Idempotency keys of the actions of a page whose outcome is uncertain, also while they are under way: the server recognizes the
 * repetition of such a call by its key, and makes it once. Other refusals of a repetition show nothing of the call before, whose key
 * stays.
 */
export class ActionKeys {
  readonly #uncertain = new Map<string, string>();

  /** Runs an action with the key of its last call if the outcome of that is uncertain, otherwise with a new one. */
  async during<R>(action: string, run: (key: string) => Promise<R>): Promise<R> {
    const known = this.#uncertain.get(action);
    const key = known ?? newKey();
    this.#uncertain.set(action, key);
    try {
      const result = await run(key);
      this.#forget(action, key);
      return result;
    } catch (error) {
      if (isTransient(error)) {
        // A call at the same time may have been refused.
        this.#uncertain.set(action, this.#uncertain.get(action) ?? key);
      } else if (!known || isOver(error)) {
        this.#forget(action, key);
      }
      throw error;
    }
  }

  #forget(action: string, key: string): void {
    if (this.#uncertain.get(action) === key) {
      this.#uncertain.delete(action);
    }
  }
}

function isOver(error: unknown): boolean {
  return error instanceof ApiError && (error.isDone || USED.includes(error.reason));
}
