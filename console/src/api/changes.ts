/** Changes that are kept of a read at most; with more, the oldest are dropped. */
const MOST = 10_000;

/** Changes that arrive while a list is read. What the server has read may be older than these. */
export class Changes<T> {
  #kept: T[] = [];
  /** Number of changes that were dropped or forgotten, so that positions stay the same. */
  #gone = 0;
  #reads = 0;

  add(change: T): void {
    if (this.#reads === 0) {
      return;
    }
    this.#kept.push(change);
    if (this.#kept.length > MOST) {
      this.#kept.shift();
      this.#gone += 1;
    }
  }

  /** Reads something, and applies to it what has changed meanwhile, in its order. */
  async during<R>(read: () => Promise<R>, apply: (found: R, change: T) => R): Promise<R> {
    const from = this.#gone + this.#kept.length;
    this.#reads += 1;
    try {
      const found = await read();
      return this.#kept.slice(Math.max(0, from - this.#gone)).reduce(apply, found);
    } finally {
      this.#reads -= 1;
      if (this.#reads === 0) {
        this.#gone += this.#kept.length;
        this.#kept = [];
      }
    }
  }
}
