import { ApiError, isTransient, newKey } from "./client";

/**
 * Idempotency keys of the actions of a page whose outcome is uncertain: the server recognizes the repetition of such a call by its key,
 * and makes it once. A refusal of a repetition shows nothing of the call before, whose key stays.
 */
export class ActionKeys {
  readonly #uncertain = new Map<string, string>();

  /** Runs an action with the key of its last call if the outcome of that is uncertain, otherwise with a new one. */
  async during<R>(action: string, run: (key: string) => Promise<R>): Promise<R> {
    const key = this.#uncertain.get(action) ?? newKey();
    try {
      const result = await run(key);
      this.#uncertain.delete(action);
      return result;
    } catch (error) {
      if (isTransient(error)) {
        this.#uncertain.set(action, key);
      } else if (error instanceof ApiError && error.isDone) {
        this.#uncertain.delete(action);
      }
      throw error;
    }
  }
}
