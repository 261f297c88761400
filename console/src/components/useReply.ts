import { useEffect, useRef, useState } from "react";

/** A reply of a person to a question that has ended. */
export interface Unused {
  /** The question. */
  asked: string;
  /** What was typed or chosen. */
  given: string;
  /** Error of the call, if the reply was sent. */
  error?: unknown;
}

/** A call that has failed, with the text of the form. */
interface Failed {
  text: string;
  given: string;
  error: unknown;
}

interface Reply {
  busy: boolean;
  problem: unknown;
  /** Makes the call that sends a reply, then reads again what is asked. */
  send: (given: string, call: () => Promise<unknown>, refresh: () => Promise<unknown>) => Promise<void>;
}

/**
 * Sends the reply to a question. Another person may be faster: the question, and its form with it, then end. What the server has not
 * accepted by then is given to the page, which stays.
 */
export function useReply(asked: string, text: string, onUnused: (unused: Unused) => void): Reply {
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<unknown>();
  const latest = useRef({ asked, text, onUnused });
  latest.current = { asked, text, onUnused };
  const state = useRef<{ isOpen: boolean; isSettled: boolean; failed?: Failed }>({
    isOpen: true,
    isSettled: false,
  });
  useEffect(() => {
    const own = state.current;
    own.isOpen = true;
    return () => {
      own.isOpen = false;
      const { asked, text, onUnused } = latest.current;
      // What was typed after a failed call is newer than that.
      const { given, error } =
        own.failed?.text === text ? own.failed : { given: text.trim(), error: undefined };
      // A call that is under way decides at its end.
      if (!own.isSettled && given) {
        onUnused({ asked, given, error });
      }
    };
  }, []);
  const send: Reply["send"] = async (given, call, refresh) => {
    const own = state.current;
    setBusy(true);
    setProblem(undefined);
    delete own.failed;
    own.isSettled = true;
    try {
      await call();
    } catch (error) {
      own.isSettled = false;
      own.failed = { text: latest.current.text, given, error };
      setProblem(error);
      if (!own.isOpen) {
        latest.current.onUnused({ asked: latest.current.asked, given, error });
      }
    }
    await refresh();
    setBusy(false);
  };
  return { busy, problem, send };
}

/** Returns a choice with the text that belongs to it, as a reply that was not used shows both. */
export function choiceWith(choice: string, text: string): string {
  return text.trim() ? `${choice}: ${text}` : choice;
}

/** Replies that were not used, what adds one, and what forgets them. */
export function useUnused(): [readonly Unused[], (unused: Unused) => void, () => void] {
  const [all, setAll] = useState<readonly Unused[]>([]);
  return [all, (unused) => setAll((before) => [...before, unused]), () => setAll([])];
}
