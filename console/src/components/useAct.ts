import { useState } from "react";

/** Error of the last call that a page has made, and what awaits a call: its error is thrown on, too. */
export function useAct(): [unknown, (call: Promise<unknown>) => Promise<void>] {
  const [problem, setProblem] = useState<unknown>();
  const act = async (call: Promise<unknown>) => {
    setProblem(undefined);
    try {
      await call;
    } catch (error) {
      setProblem(error);
      throw error;
    }
  };
  return [problem, act];
}
