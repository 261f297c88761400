import { useRef, useState } from "react";
import { newKey } from "../api/client";
import { Dialog } from "./Dialog";

interface Props {
  label: string;
  /** Name of the button where several have the same label. */
  name?: string;
  /** What is done, with its extent, as a question. */
  question: string;
  /** Gets a key that stays the same until the action has succeeded: a repeated call is recognized by it. */
  onConfirm: (key: string) => Promise<unknown>;
  disabled?: boolean;
}

/** A button whose action is confirmed first, and is done once at a time. */
export function Confirm({ label, name, question, onConfirm, disabled }: Props) {
  const [open, setOpen] = useState(false);
  const [busy, setBusy] = useState(false);
  const key = useRef("");
  const confirm = async () => {
    setOpen(false);
    setBusy(true);
    key.current ||= newKey();
    try {
      await onConfirm(key.current);
      key.current = "";
    } catch {
      // Shown by the page. The key is kept: the call may have been made all the same.
    }
    setBusy(false);
  };
  return (
    <>
      <button type="button" aria-label={name} disabled={disabled || busy} onClick={() => setOpen(true)}>
        {label}
      </button>
      <Dialog open={open} onClose={() => setOpen(false)} title={label}>
        <p>{question}</p>
        <button type="button" className="primary" onClick={() => void confirm()}>
          {label}
        </button>
      </Dialog>
    </>
  );
}
